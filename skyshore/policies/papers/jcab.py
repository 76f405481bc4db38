"""JCAB: joint configuration adaptation and bandwidth allocation, by Lyapunov drift and Markov approximation.

Ports: Wang et al., "Joint configuration adaptation and bandwidth allocation for edge-based real-time video analytics"
(INFOCOM 2020), from what is generally known of it (digest 2.5; the paper itself was not at hand). Accuracy is weighed
against energy while the mean delay stays within its bound: a virtual queue Q takes what the bound is exceeded by, each
slot maximises

    V·(accuracy − w·E / Ē) − Q·(delay / allowed),

and the discrete choice is made by a Markov chain that moves one task at a time to arm a with chance ∝ e^{β·value}. The
bandwidth of a shared link is split in proportion to √bytes, which is what minimises the slot's sum of transmission
times: a task of d_i bytes among others of d_j then takes √d_i·Σ√d_j / B.

Our choices: V = 1, w = 0.2, β = 20, bound 0.8 of the deadline, two passes of the chain over the slot's tasks before
`select` makes the third; the arms (model, input size, stride, encoding) are the configurations. Left out: setting the
rate of each stream: links here share as they please, so the split is what the policy reckons with, not what it imposes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.policies.protocol import Arms, Context, Decision, Feedback, Floats, Policy

PASSES = 2
BOUND = 0.8
"""Mean share of the deadline that the virtual queue allows."""
MOST_QUEUE = 20.0
STEP = 0.3
SMOOTHING = 0.02
LATEST = 4.0
"""Delays count up to this many deadlines."""


class Jcab(Policy):
    """One virtual queue per kind of task; the arrivals of a slot are moved about together."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        tradeoff: float = 1.0,
        energy_weight: float = 0.2,
        beta: float = 20.0,
        slot_s: float = 0.05,
    ) -> None:
        """`tradeoff` is V, `energy_weight` w, `beta` the chain's inverse temperature."""
        self.slot_s = slot_s
        self._rng = rng
        self._tradeoff, self._energy_weight, self._beta = tradeoff, energy_weight, beta
        self._queue = dict.fromkeys(TaskKind, 0.0)
        self._mean_joules = dict.fromkeys(TaskKind, 0.0)
        self._standing: dict[str, tuple[int, float]] = {}
        """Tasks of the slot being placed: task id → node the chain has it on, and √bytes."""

    def plan(self, contexts: Sequence[Context], options: Sequence[Arms]) -> None:
        """Let the chain settle over all tasks of the slot."""
        self._standing = {}
        for _ in range(PASSES):
            for context, arms in zip(contexts, options, strict=True):
                index, _, _ = self._move(context, arms)
                self._stand(context, arms, index)

    def select(self, context: Context, arms: Arms) -> Decision:
        """The chain's next move for this task; the propensity is that of the move."""
        planned = context.task.task_id in self._standing
        index, chances, values = self._move(context, arms)
        if planned:
            self._stand(context, arms, index)
        return Decision(index, float(chances[index]), values)

    def update(self, feedback: Feedback) -> None:
        """Feed the virtual queue and the mean of joules."""
        kind, outcome = feedback.context.task.kind, feedback.outcome
        over = min(outcome.latency_s / outcome.deadline_s, LATEST) - BOUND
        self._queue[kind] = min(max(self._queue[kind] + STEP * over, 0.0), MOST_QUEUE)
        before = self._mean_joules[kind]
        self._mean_joules[kind] = before + SMOOTHING * (outcome.joules - before) if before else outcome.joules

    def _move(self, context: Context, arms: Arms) -> tuple[int, Floats, Floats]:
        self._standing.pop(context.task.task_id, None)
        values = self._values(context, arms)
        weights = np.exp(self._beta * (values - values.max()))
        chances: Floats = weights / weights.sum()
        return int(self._rng.choice(len(arms), p=chances)), chances, values

    def _stand(self, context: Context, arms: Arms, index: int) -> None:
        self._standing[context.task.task_id] = int(arms.node[index]), float(np.sqrt(arms.up_bytes[index]))

    def _values(self, context: Context, arms: Arms) -> Floats:
        kind, allowed_s = context.task.kind, max(context.remaining_s, 1e-3)
        shared = np.zeros(len(arms))
        company = np.zeros(len(arms))
        for node, root in self._standing.values():
            shared += np.where(arms.node == node, root, 0.0)
            company += arms.node == node
        crowd_s = np.sqrt(arms.up_bytes) * shared / arms.up_bytes_per_s + company * arms.service_s / arms.slots
        delay = np.minimum((arms.latency_s + crowd_s) / allowed_s, LATEST)
        mean_joules = self._mean_joules[kind] or float(arms.joules.mean()) or 1.0
        accuracy = np.where(delay <= 1.0, arms.quality, 0.0)  # an answer that comes too late says nothing
        worth = self._tradeoff * (accuracy - self._energy_weight * arms.joules / mean_joules)
        return np.asarray(worth - self._queue[kind] * delay, np.float64)
