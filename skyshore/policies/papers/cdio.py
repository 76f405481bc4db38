"""CDIO's cross-domain optimisation as a combinatorial bandit (arXiv 2502.04078).

From the paper, partly at second hand (the digest, part 2, marks what): compute and bandwidth use, U + φ·B, are
minimised together under accuracy and delay demands; a task predicted to prefer compute goes to the cloud first, one
that prefers bandwidth to the edge first; the regret stated is CUCB's (Chen, Wang and Yuan, 2013), so the index is

    1 − c + √(3·ln t / 2n),    c = (u + φ·b) / (1 + φ) in [0, 1]

per (preference, complexity bin, arm), u the seconds of one slot and b the bytes of the link that a task takes, each as
a share of what the node offers within the deadline. Preference and complexity come with the task's profile.

Our choices: feasibility is optimistic (accuracy mean plus radius against the demand, delay mean minus radius against
the time left); delay is learned as measured over estimated, so that the live queue counts; the oracle is greedy by
regret with moves and swaps (`assignment`), over the arrivals of a slot; the feedback step narrows the share of the
deadline that may be planned for by 5 % after a violation and widens it by 0.5 % after a success; a task whose
preferred tier has nothing feasible tries the other; one that finds nothing takes the fastest. Left out: the paper's
per-task shares of a server, which no engine here can grant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.policies.learning.class_statistics import ClassStatistics
from skyshore.policies.learning.snapshot import join_parts, split_parts
from skyshore.policies.papers.assignment import NOWHERE, Assignment
from skyshore.policies.protocol import Arms, Booleans, Context, Decision, Feedback, Floats, Policy

FORMAT = "cdio/1"
COMPLEXITY_EDGES = (0.01, 0.03, 0.06)
"""Bins of Σ C_k from k = 1 on; the first entry alone is mere contrast."""
COMPUTE_BELOW = 0.0125
"""Without the LSTM: Σ C_k from k = 1 on below which a task is taken to prefer compute.

Cut and direction are those of `preference.json`, chosen on the cameras learned from.
"""
NARROWER, WIDER, NARROWEST = 0.95, 1.005, 0.5
RADIUS_OF_DEMANDS = 0.1
"""Weight of the radius in the feasibility tests, where a whole unit would let everything pass for long."""


class Cdio(Policy):
    """The bandit; `preference`, `lstm`, `complexity` and `bandit` switch off one part each.

    Without `lstm` the preference comes from a threshold on complexity; without `preference` no tier goes first; without
    `complexity` all tasks share a bin, the preference staying as predicted; without `bandit` stated costs decide.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        phi: float = 1.0,
        discount: float = 0.995,
        slot_s: float = 0.05,
        preference: bool = True,
        lstm: bool = True,
        complexity: bool = True,
        bandit: bool = True,
    ) -> None:
        """The generator is not needed: ties go to the first arm."""
        self.slot_s = slot_s
        self._phi, self._discount = phi, discount
        self._preference, self._lstm, self._complexity, self._bandit = preference, lstm, complexity, bandit
        self._cost, self._accuracy, self._delay = self._fresh(), self._fresh(), self._fresh()
        self._share: dict[str, float] = {}
        """Share of the deadline that may be planned for, per key."""
        self._planned: dict[str, str] = {}
        """Task id → arm id, for the slot being placed."""

    def plan(self, contexts: Sequence[Context], options: Sequence[Arms]) -> None:
        """Solve the slot jointly, kind by kind."""
        self._planned = {}
        for kind in {context.task.kind for context in contexts}:
            mine = [(c, a) for c, a in zip(contexts, options, strict=True) if c.task.kind is kind]
            self._plan_kind([context for context, _ in mine], [arms for _, arms in mine])

    def select(self, context: Context, arms: Arms) -> Decision:
        """The planned arm while it still has room, else the best for this task alone."""
        scores = self._scores(context, arms)
        planned = self._planned.pop(context.task.task_id, None)
        if planned is not None:
            found = [row for row in range(len(arms)) if arms.arm_id(row) == planned]
            if found:
                return Decision(found[0], scores=scores)
        if not np.isfinite(scores).any():
            return Decision(int(arms.latency_s.argmin()), scores=scores)
        return Decision(int(scores.argmax()), scores=scores)

    def update(self, feedback: Feedback) -> None:
        """Learn measured cost, accuracy and delay; move the share that may be planned for."""
        arm, outcome, context = feedback.arm, feedback.outcome, feedback.context
        kind, key = context.task.kind, self._key(context)
        kept = outcome.met_deadline and outcome.quality >= context.task.min_quality
        self._share[key] = min(max(self._share.get(key, 1.0) * (WIDER if kept else NARROWER), NARROWEST), 1.0)
        self._delay[kind].learn(key, arm.arm_id, outcome.latency_s / max(arm.latency_s, 1e-3))
        if outcome.status is OutcomeStatus.OK:
            used_s = outcome.worker.prefill_s + outcome.worker.compute_s
            compute = used_s / (arm.slots * outcome.deadline_s)
            link = outcome.up_bytes / (arm.up_bytes_per_s * outcome.deadline_s)
            self._cost[kind].learn(key, arm.arm_id, min((compute + self._phi * link) / (1.0 + self._phi), 1.0))
            self._accuracy[kind].learn(key, arm.arm_id, outcome.quality)
        else:
            self._cost[kind].learn(key, arm.arm_id, 1.0)

    def snapshot(self) -> bytes:
        """Statistics of every kind; the shares are relearned within a few tasks."""
        tables = (self._cost, self._accuracy, self._delay)
        return join_parts([table[kind].snapshot(FORMAT) for table in tables for kind in TaskKind])

    def restore(self, snapshot: bytes) -> None:
        """See Policy."""
        tables = (self._fresh(), self._fresh(), self._fresh())
        parts = iter(split_parts(snapshot, 3 * len(TaskKind)))
        for table in tables:
            for kind in TaskKind:
                table[kind].restore(FORMAT, next(parts))
        self._cost, self._accuracy, self._delay = tables

    def _fresh(self) -> dict[TaskKind, ClassStatistics]:
        return {kind: ClassStatistics(self._discount) for kind in TaskKind}

    def _key(self, context: Context) -> str:
        structure = sum(context.profile.complexity[1:8])
        bin_ = sum(structure > edge for edge in COMPLEXITY_EDGES) if self._complexity else 0
        return f"{'compute' if self._preference and self._wants_compute(context) else 'bandwidth'}/{bin_}"

    def _wants_compute(self, context: Context) -> bool:
        if self._lstm or not context.profile.complexity:
            return context.profile.compute_preference >= 0.5
        return sum(context.profile.complexity[1:8]) < COMPUTE_BELOW

    def _scores(self, context: Context, arms: Arms) -> Floats:
        """CUCB index of the rows that are feasible in the tier to be tried first; −∞ for the rest."""
        kind, key = context.task.kind, self._key(context)
        count, cost, total = self._cost[kind].read(key, arms)
        stated = self._stated_cost(context, arms)
        if self._bandit:
            radius = np.sqrt(1.5 * max(np.log(max(total, 1.0)), 0.0) / np.maximum(count, 1e-9))
            index = np.where(count > 0, 1.0 - cost + radius, np.inf)
        else:
            radius, index = np.zeros(len(arms)), 1.0 - stated
        feasible = self._feasible(context, arms, key, np.minimum(radius, 1.0) * RADIUS_OF_DEMANDS)
        if self._preference:
            first = arms.is_cloud if self._wants_compute(context) else ~arms.is_cloud
            if (feasible & first).any():
                feasible &= first
        # An arm never tried counts as infinite; the stated cost orders them.
        return np.where(feasible, np.minimum(index, 1e6 - stated), -np.inf)

    def _stated_cost(self, context: Context, arms: Arms) -> Floats:
        allowed_s = max(context.remaining_s, 1e-3)
        compute = arms.service_s / (arms.slots * allowed_s)
        link = arms.up_bytes / (arms.up_bytes_per_s * allowed_s)
        cost: Floats = np.minimum((compute + self._phi * link) / (1.0 + self._phi), 1.0)
        return cost

    def _feasible(self, context: Context, arms: Arms, key: str, radius: Floats) -> Booleans:
        kind = context.task.kind
        seen, ratio, _ = self._delay[kind].read(key, arms)
        known, accuracy, _ = self._accuracy[kind].read(key, arms)
        delay_s = arms.latency_s * np.where(seen > 0, ratio, 1.0)
        quality = np.where(known > 0, accuracy, arms.quality)
        in_time = delay_s * (1.0 - radius) <= context.remaining_s * self._share.get(key, 1.0)
        feasible: Booleans = in_time & (quality + radius >= context.task.min_quality)
        return feasible

    def _plan_kind(self, contexts: Sequence[Context], options: Sequence[Arms]) -> None:
        table = options[0].table
        scores = np.full((len(contexts), len(table.arm_ids)), -np.inf)
        needs = np.ones((*scores.shape, 2))
        room = np.zeros((int(table.node.max()) + 1, 2))
        for row, (context, arms) in enumerate(zip(contexts, options, strict=True)):
            scores[row, arms.rows] = self._scores(context, arms)
            needs[row, arms.rows, 1] = arms.up_bytes / max(context.remaining_s, 1e-3)
            room[arms.node, 0] = arms.capacity - arms.load
            room[arms.node, 1] = np.maximum(arms.up_bytes_per_s - arms.reserved_bytes_per_s, 0.0)
        choice = Assignment(scores, needs, room, table.node).solve()
        for context, arm in zip(contexts, choice, strict=True):
            if arm != NOWHERE:
                self._planned[context.task.task_id] = table.arm_ids[arm]
