"""`skyshore`: least marginal joules, deadlines priced by the chance of missing them. Our own, past both papers.

For each arm the latency L, its spread σ and the joules are predicted from learned corrections of the estimates
(`arm_models`), from the bytes still on their way to the node (`uplinks`) and from when its engine is free
(`engine_queues`); from L, σ and the class's past (`risk`) the chance p that the deadline is missed; from the tasks
already on the node (`in_flight`) how many deadlines x a newcomer would break there. The arm with the least

    ΔJ·(1 − β / √(4 + n)) · (1 + 10·failures)  +  λ_k·J̄·(p + x)

is taken. ΔJ is what the task adds to the node's bill: its own iterations, and the shared ones for as long as it would
be alone there. So tasks gather on nodes that work anyway, until the deadlines of those before them stand against it.
Further: optimism about arms seldom seen (n outcomes), distrust of arms that failed lately, and the Lagrange multiplier
λ_k of "at most a share `miss_share` of class k misses", moved by dual ascent between bounds, so that caution is as dear
as it has to be. J̄ is the running geometric mean of joules, so that a few dear answers do not raise what a deadline is
worth and with it the number of dear answers. Arms whose learned quality is below floor + margin_k come last; a
virtual queue of past shortfalls sets the margin.

A task is refused at once when what it is good for is too little,

    1 − p − x  <  min(`floor` + m_k, `ceiling`),       m_k: running share of the placed tasks of class k that missed.

An answer that will be cut off at its deadline costs joules and takes the place of one that would have been in time.
With room to spare few miss and nearly everything is tried; under overload the policy grows picky. One in twenty is
tried all the same, for a policy that refuses everything would never learn better.

Kin: constrained contextual bandits (digest 4.2, rows 1 to 6). What else was tried is in `docs/policies.md`.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np

from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.policies.arm_models import (
    COUNT,
    FAILED,
    FAILED_AT_S,
    FAILURE_FADES_S,
    GROWTH,
    LEAST_SHARE,
    QUALITY,
    REST_S,
    SPREAD,
    U0,
    U1,
    UNKNOWN_WATTS,
    V0,
    V1,
    ArmModels,
    crowd,
    predicted_latency_s,
)
from skyshore.policies.class_state import ClassState
from skyshore.policies.in_flight import BROKEN, ENDS_AT_S, FREE_AT_S, OURS, PACE, Flying, InFlight, Way
from skyshore.policies.protocol import REFUSED, Arms, Context, Decision, Feedback, Floats, Policy
from skyshore.policies.snapshot import join_parts, split_parts

FORMAT = "skyshore/2"
SMOOTHING = 0.02
"""Of the running geometric mean of joules."""
MOST_CLASSES = 64
"""Beyond these, classes share one state: a caller must not be able to grow the table without end."""
OTHERS = "(others)"
PROBE = 0.05
"""Of the tasks to be refused, this share is tried all the same: who refuses everything never learns better."""


class _Best(NamedTuple):
    """The arm of the least cost."""

    row: int
    node: int
    latency_s: float
    lost: float
    """Deadlines it would break: its own and those of others."""
    joules: float
    lead: tuple[float, float, float]
    """See `FewOutlooks`."""


class Skyshore(Policy):
    """One contextual policy for every kind of task."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        miss_share: float = 0.03,
        cheapest: float = 5.0,
        dearest: float = 60.0,
        optimism: float = 0.3,
        floor: float = 0.2,
        ceiling: float = 0.4,
    ) -> None:
        """λ moves between `cheapest` and `dearest`."""
        self._rng = rng
        self._miss_share, self._cheapest, self._dearest, self._optimism = miss_share, cheapest, dearest, optimism
        self._floor, self._ceiling = floor, ceiling
        self._models = {kind: ArmModels() for kind in TaskKind}
        self._in_flight = {kind: InFlight() for kind in TaskKind}
        self._mean_joules = dict.fromkeys(TaskKind, 0.0)
        self._classes: dict[str, ClassState] = {}

    def select(self, context: Context, arms: Arms) -> Decision:
        """Least joules plus priced risk, or a refusal."""
        state, flights = self._class(context.task.service_class), self._in_flight[context.task.kind]
        learned = self._models[context.task.kind].of(arms)
        on_node = flights.of(arms.node)
        sent_s, start_s, queue_s = _lead(context.now_s, arms, on_node, flights.engines.of(arms))
        taken = crowd(arms.load + learned[GROWTH], arms.slots)
        service_s = arms.service_s * (learned[U0] + learned[U1] * taken)
        latency_s = start_s + queue_s * learned[U0] + service_s + learned[REST_S]
        latency_s = np.maximum(latency_s, LEAST_SHARE * (arms.transmission_s + arms.service_s) + 1e-3)
        spare = (context.remaining_s / latency_s - 1.0) / learned[SPREAD]  # in sigmas
        chance = state.risk.chance(spare)
        joules = self._joules(context, arms, learned, (context.now_s + latency_s - on_node[ENDS_AT_S]) / latency_s)
        mean_joules = self._mean_joules[context.task.kind] or float(joules.mean())
        lost = chance + on_node[BROKEN]
        cost = joules + state.multiplier.value * mean_joules * lost
        if context.task.min_quality > 0:
            cost = self._priced_quality(context, arms, learned, cost)
        index = int(cost.argmin())
        best = _Best(
            index,
            int(arms.node[index]),
            float(latency_s[index]),
            float(lost[index]),
            float(joules[index]),
            (float(sent_s[index]), float(start_s[index]), float(queue_s[index])),
        )
        return self._answer(context, state, arms, best, -cost)

    def update(self, feedback: Feedback) -> None:
        """Correct the arm's model and the class's risk and multiplier by what was measured."""
        arm, outcome, task = feedback.arm, feedback.outcome, feedback.context.task
        models, state, flights = self._models[task.kind], self._class(task.service_class), self._in_flight[task.kind]
        flying = flights.drop(task.task_id, feedback.now_s, answered=outcome.status is OutcomeStatus.OK)
        others = arm.load if flying is None or flying.others is None else flying.others
        state.multiplier.observe(missed=not outcome.met_deadline)
        models.learn_end(arm, feedback.now_s, failed=outcome.status is OutcomeStatus.FAILED)
        if outcome.status is OutcomeStatus.FAILED:
            return
        learned = models.of_arm(arm.arm_id)
        start_s, queue_s = (flying.start_s, flying.queue_s) if flying else (arm.transmission_s, arm.queue_s)
        predicted_s, latency_s = predicted_latency_s(arm, learned, start_s, queue_s), outcome.latency_s
        cut_off = outcome.status is not OutcomeStatus.OK
        state.risk.observe((latency_s / predicted_s - 1.0) / learned[SPREAD], cut_off=cut_off)
        if flying is not None:
            self._note_way(feedback, flights, flying, predicted_s)
        if not cut_off:
            self._learn_answer(feedback, others)
        elif latency_s > predicted_s:  # all that is known is that it would have taken longer
            models.learn_service(arm, arm.service_s * learned[U0] * latency_s / predicted_s, others)
        else:
            return
        models.learn_growth(arm, others)
        models.learn_latency(arm, latency_s, predicted_s)

    def _note_way(self, feedback: Feedback, flights: InFlight, flying: Flying, predicted_s: float) -> None:
        """When the bytes of a task had left at the latest, from what came after; or that they had not."""
        arm, context, outcome = feedback.arm, feedback.context, feedback.outcome
        answered, worker = outcome.status is OutcomeStatus.OK, outcome.worker
        stated_pace = 1.0 / arm.up_bytes_per_s
        there_and_back_s = arm.transmission_s - arm.up_bytes * stated_pace
        computed_s = worker.prefill_s + worker.compute_s if answered else flying.work_s
        after_s = computed_s + there_and_back_s + outcome.gateway_s + context.waited_s
        left_at_s = context.now_s + max(outcome.latency_s - after_s, 0.0)
        if answered:
            flights.arrived(flying, left_at_s, computed_s, stated_pace)
        elif flying.sent_s > 0.5 * predicted_s:  # otherwise it is more likely to have been the engine
            flights.overdue(flying, left_at_s, stated_pace)

    def _answer(
        self, context: Context, state: ClassState, arms: Arms, best: _Best, scores: Floats | list[float]
    ) -> Decision:
        success = max(1.0 - best.lost, 0.0)
        features = (best.latency_s, success, best.joules, state.multiplier.value)
        if success >= min(self._floor + state.multiplier.missed_share, self._ceiling):
            self._note_placed(context, arms, best)
            return Decision(best.row, scores=scores, features=features)
        if self._rng.random() < PROBE:
            self._note_placed(context, arms, best)
            return Decision(best.row, PROBE, scores=scores, features=features)
        reason = f"the deadline would be kept with a chance of {success:.0%}"
        return Decision(REFUSED, 1.0 - PROBE, scores=scores, features=features, reason=reason, transient=True)

    def _note_placed(self, context: Context, arms: Arms, best: _Best) -> None:
        now_s, kind, arm = context.now_s, context.task.kind, arms.estimate(best.row)
        learned, flights = self._models[kind].of_arm(arm.arm_id), self._in_flight[kind]
        sent_s, start_s, queue_s = best.lead
        several = arm.slots > 1.0
        flying = Flying(
            placed_at_s=now_s,
            ends_at_s=now_s + best.latency_s,
            due_at_s=now_s + context.remaining_s,
            sigma_s=float(learned[SPREAD]) * best.latency_s,
            # Whoever serves one at a time, first come first served, lets no newcomer delay those before it.
            delay_s=arm.service_s * max(float(learned[U1]), 0.0) / arm.slots if several else 0.0,
            sent_s=sent_s,
            start_s=start_s,
            work_s=arm.service_s * float(learned[U0]),
            queue_s=queue_s,
            engine=-1 if several else flights.engines.number(arms, best.row),
        )
        way = Way(arm.up_bytes, 1.0 / arm.up_bytes_per_s)
        flights.add(best.node, context.task.task_id, now_s, flying, way)

    def snapshot(self) -> bytes:
        """Models of every kind, running means, the state of every class. Tasks under way do not outlive a restart."""
        parts = [models.snapshot(FORMAT) for models in self._models.values()]
        classes = {name: state.plain() for name, state in self._classes.items()}
        parts.append(json.dumps({"classes": classes, "mean_joules": self._mean_joules}).encode())
        return join_parts(parts)

    def restore(self, snapshot: bytes) -> None:
        """See Policy."""
        *tables, scalars = split_parts(snapshot, len(self._models) + 1)
        fresh = {kind: ArmModels() for kind in self._models}
        for models, part in zip(fresh.values(), tables, strict=True):
            models.restore(FORMAT, part)
        try:
            content = json.loads(scalars)
            classes = {name: self._fresh_class() for name in content["classes"]}
            for name, plain in content["classes"].items():
                classes[name].take(plain)
            mean_joules = {kind: float(content["mean_joules"][kind]) for kind in TaskKind}
        except (KeyError, TypeError) as error:
            raise ValueError(f"a snapshot without {error}") from error
        self._models, self._classes, self._mean_joules = fresh, classes, mean_joules

    def _class(self, name: str) -> ClassState:
        state = self._classes.get(name)
        if state is None:
            if len(self._classes) >= MOST_CLASSES and name != OTHERS:
                return self._class(OTHERS)
            state = self._classes[name] = self._fresh_class()
        return state

    def _fresh_class(self) -> ClassState:
        return ClassState(self._miss_share, self._cheapest, self._dearest)

    def _joules(self, context: Context, arms: Arms, learned: Floats, alone: Floats) -> Floats:
        """What one more task adds: its own iterations, and the shared ones for as long as it would be alone."""
        stated = np.where(arms.joules > 0, arms.joules, UNKNOWN_WATTS * arms.service_s)
        joules: Floats = stated * np.maximum(learned[V0] + learned[V1] * np.minimum(np.maximum(alone, 0.0), 1.0), 0.02)
        joules *= 1.0 - self._optimism / np.sqrt(4.0 + learned[COUNT])
        if learned[FAILED].any():
            age_s = np.maximum(context.now_s - learned[FAILED_AT_S], 0.0)
            joules *= 1.0 + 10.0 * learned[FAILED] * np.exp(-age_s / FAILURE_FADES_S)
        return joules

    def _priced_quality(self, context: Context, arms: Arms, learned: Floats, cost: Floats) -> Floats:
        """Arms whose learned quality is too low cost more than any that is good enough."""
        floor = context.task.min_quality + self._class(context.task.service_class).quality_margin
        lacking = np.maximum(floor - arms.quality - learned[QUALITY], 0.0)
        return np.where(lacking > 0, cost + (1.0 + lacking) * cost.max(), cost)

    def _learn_answer(self, feedback: Feedback, others: float) -> None:
        arm, outcome, task = feedback.arm, feedback.outcome, feedback.context.task
        models, worker = self._models[task.kind], outcome.worker
        joules = outcome.transmission_joules + worker.inference_joules
        models.learn_service(arm, worker.prefill_s + worker.compute_s, others)
        models.learn_joules(arm, joules)
        before = self._mean_joules[task.kind]
        if joules > 0:  # a geometric mean: the few dear ones must not make the next dear one look cheap
            self._mean_joules[task.kind] = before * float(joules / before) ** SMOOTHING if before else joules
        if outcome.quality > 0:  # measured
            models.learn_quality(arm, outcome.quality)
            self._class(task.service_class).note_quality(task.min_quality - outcome.quality, task.min_quality)


def _lead(now_s: float, arms: Arms, on_node: Floats, free_at_s: Floats) -> tuple[Floats, Floats, Floats]:
    """Seconds until a task's bytes are there, until its engine is free too, and of others' tasks before it."""
    sent_s, queue_s, pace = arms.transmission_s, arms.queue_s, on_node[PACE]
    # Each condition spares the usual case, in which it does not hold, what follows; the result is the same.
    if on_node[FREE_AT_S].max() > now_s:
        sent_s = sent_s + np.maximum(on_node[FREE_AT_S] - now_s, 0.0)
    if pace.any():
        sent_s = sent_s + np.where(pace > 0.0, arms.up_bytes * (pace - 1.0 / arms.up_bytes_per_s), 0.0)
    start_s = np.maximum(free_at_s - now_s, sent_s) if free_at_s.max() > now_s else sent_s
    if queue_s.any():
        others = np.maximum(arms.load - on_node[OURS], 0.0) / np.maximum(arms.load, 1.0)
        queue_s = np.where(arms.slots <= 1.0, queue_s * others, queue_s)
    return sent_s, start_s, queue_s
