"""The rule of the policy `skyshore` (see `skyshore.policies.own.skyshore`): choose an arm, learn from attempts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from skyshore.rules.arm_model import (
    learn_failure,
    learn_joules,
    learn_latency,
    learn_load_growth,
    learn_quality,
    learn_service,
    predicted_latency_s,
)
from skyshore.rules.choose import learn, select_arm, take_first_best
from skyshore.rules.forecast import forecast_arm, lacking_quality, largest_cost, pairwise_sum
from skyshore.rules.in_flight import (
    InFlightState,
    add_flight,
    drop_flight,
    find_flight,
    learn_upload,
    place_of,
    take_flight,
)
from skyshore.rules.kernel import implement, kernel
from skyshore.rules.miss_risk import observe_miss, observe_quality, observe_score, quality_margin
from skyshore.rules.records import FAILED, NONE, Floats, Options, Record, Records

PROBE = 0.05
"""Share of the tasks to be refused that are placed in spite of it, to learn."""
SMOOTHING = 0.02
"""Weight of the newest answer in the running geometric mean of joules."""


class SkyshoreSettings(NamedTuple):
    """Constants of one policy object."""

    optimism: float
    floor: float
    ceiling: float
    least_multiplier: float
    largest_multiplier: float
    raise_by: float
    """Factor of λ after a miss, and after none; see `observe_miss`."""
    lower_by: float


class SkyshoreState(NamedTuple):
    """What the policy has learned, and the attempts in flight."""

    rng: np.random.Generator
    settings: SkyshoreSettings
    arms: Records
    """ARM_MODEL by `place_of(kind, slot)`."""
    mean_joules: Floats
    """[kinds] J̄, 0 before the first answer."""
    classes: Records
    """CLASS by service class."""
    alive: Floats
    """[classes][INTERVALS] survival curve; see `observe_score`."""
    ended: Floats
    chance: Floats
    """[classes][EDGES] probability of a miss, computed from the two above."""
    tasks: InFlightState


@implement(select_arm, SkyshoreState)
def select_least_cost(state: SkyshoreState, demand: Record, options: Options) -> None:
    """Take the arm of the least cost, or refuse. Scores are minus the cost.

    Features: predicted latency in seconds, chance of success, joules, λ.
    """
    decision, group = options.decision[0], state.classes[demand.group]
    group.used = 1
    mean_joules = state.mean_joules[demand.kind]
    score_arms(state, demand, options, group.multiplier * mean_joules)
    if mean_joules == 0.0:  # nothing was measured yet, and at a price of 0 the scores are minus the joules
        mean_joules = -pairwise_sum(options.scores, decision.count) / decision.count
        score_arms(state, demand, options, group.multiplier * mean_joules)
    if demand.min_quality > 0:
        price_quality(state, demand, options)
    take_first_best(options)
    answer(state, demand, options)


@kernel
def score_arms(state: SkyshoreState, demand: Record, options: Options, price: float) -> None:
    """Minus the cost of each arm at a price per lost deadline, in joules."""
    # Taken out of the state once: machine code counts references each time that a kernel is given a whole state.
    arms, nodes, engines = state.arms, state.tasks.nodes, state.tasks.engines
    estimates, scores, kind = options.estimates, options.scores, demand.kind
    chance, optimism = state.chance[demand.group], state.settings.optimism
    for index in range(options.decision[0].count):
        estimate = estimates[index]
        arm, node = arms[place_of(kind, estimate.slot)], nodes[place_of(kind, estimate.node)]
        engine = engines[place_of(kind, estimate.engine)]
        _, _, _, _, joules, lost = forecast_arm(estimate, arm, node, engine, demand, chance, optimism)
        scores[index] = -(joules + price * lost)


@kernel
def price_quality(state: SkyshoreState, demand: Record, options: Options) -> None:
    """Raise the cost of arms whose learned quality is too low above the cost of all others."""
    floor = demand.min_quality + quality_margin(state.classes[demand.group])
    largest = largest_cost(options)
    for index in range(options.decision[0].count):
        estimate = options.estimates[index]
        lacking = lacking_quality(estimate, state.arms[place_of(demand.kind, estimate.slot)], floor)
        if lacking > 0.0:
            options.scores[index] = -(-options.scores[index] + (1.0 + lacking) * largest)


@kernel
def answer(state: SkyshoreState, demand: Record, options: Options) -> None:
    """Place the task on the best arm, or refuse it."""
    decision, group, settings = options.decision[0], state.classes[demand.group], state.settings
    estimate, kind = options.estimates[decision.index], demand.kind
    sent_s, start_s, queue_s, latency_s, joules, lost = forecast_arm(
        estimate,
        state.arms[place_of(kind, estimate.slot)],
        state.tasks.nodes[place_of(kind, estimate.node)],
        state.tasks.engines[place_of(kind, estimate.engine)],
        demand,
        state.chance[demand.group],
        settings.optimism,
    )
    success = max(1.0 - lost, 0.0)
    decision.features = 4
    decision.f0, decision.f1, decision.f2, decision.f3 = latency_s, success, joules, group.multiplier
    if success < min(settings.floor + group.missed_share, settings.ceiling):
        if state.rng.random() >= PROBE:
            decision.index, decision.propensity, decision.transient = NONE, 1.0 - PROBE, 1
            return
        decision.propensity = PROBE
    note_placed(state, demand, estimate, sent_s, start_s, queue_s, latency_s)


@kernel
def note_placed(  # noqa: PLR0917 (numba takes arguments by position)
    state: SkyshoreState,
    demand: Record,
    estimate: Record,
    sent_s: float,
    start_s: float,
    queue_s: float,
    latency_s: float,
) -> None:
    """Record the attempt; an earlier attempt of the same task has ended."""
    tasks, now_s, kind = state.tasks, demand.now_s, demand.kind
    earlier = find_flight(tasks, kind, demand.task, demand.serial)
    if earlier != NONE:
        drop_flight(tasks, earlier, now_s, False)
    index = take_flight(tasks, now_s)
    flight, arm = tasks.flights[index], state.arms[place_of(kind, estimate.slot)]
    flight.task, flight.kind, flight.serial = demand.task, kind, demand.serial
    flight.node, flight.engine = place_of(kind, estimate.node), NONE
    flight.placed_at_s, flight.ends_at_s = now_s, now_s + latency_s
    flight.deadline_at_s, flight.sigma_s = now_s + demand.remaining_s, arm.sigma * latency_s
    flight.sent_s, flight.start_s, flight.queue_s = sent_s, start_s, queue_s
    flight.work_s, flight.delay_s = estimate.service_s * arm.service_base, 0.0
    if estimate.slots > 1.0:
        flight.delay_s = estimate.service_s * max(arm.service_slope, 0.0) / estimate.slots
    else:  # first come, first served: a new task does not delay those before it
        flight.engine = place_of(kind, estimate.engine)
    add_flight(tasks, index, now_s, estimate.up_bytes, 1.0 / estimate.up_bytes_per_s)


@implement(learn, SkyshoreState)
def learn_from_attempt(state: SkyshoreState, attempt: Record, now_s: float) -> None:
    """Update the arm's model and the risk and multiplier of the class from the measured values."""
    settings, group, arm = state.settings, attempt.group, state.arms[place_of(attempt.kind, attempt.slot)]
    others, start_s, queue_s = attempt.load, attempt.transmission_s, attempt.queue_s
    index = find_flight(state.tasks, attempt.kind, attempt.task, attempt.serial)
    flight = state.tasks.flights[max(index, 0)]
    if index != NONE:
        mean_others = drop_flight(state.tasks, index, now_s, attempt.answered == 1)
        others = others if math.isnan(mean_others) else mean_others
        start_s, queue_s = flight.start_s, flight.queue_s
    state.classes[group].used = 1
    observe_miss(
        state.classes[group],
        attempt.met == 0,
        settings.raise_by,
        settings.lower_by,
        settings.least_multiplier,
        settings.largest_multiplier,
    )
    failed = attempt.status == FAILED
    learn_failure(arm, now_s, failed)
    if failed:
        return
    predicted_s = predicted_latency_s(attempt, arm, start_s, queue_s)
    score = (attempt.measured_s / predicted_s - 1.0) / arm.sigma
    observe_score(state.alive[group], state.ended[group], state.chance[group], score, attempt.answered == 0)
    if index != NONE:
        learn_upload(state.tasks, flight, attempt, predicted_s)
    if attempt.answered == 1:
        learn_answer(state, attempt, arm, others)
    elif attempt.measured_s > predicted_s:  # all that is known is that it would have taken longer
        service_s = attempt.service_s * arm.service_base * attempt.measured_s / predicted_s
        learn_service(arm, attempt, service_s, others)
    else:
        return
    learn_load_growth(arm, attempt, others)
    learn_latency(arm, attempt.measured_s, predicted_s)


@kernel
def learn_answer(state: SkyshoreState, attempt: Record, arm: Record, others: float) -> None:
    """Learn what only a complete answer reports: service time, joules and quality."""
    joules = attempt.transmission_joules + attempt.inference_joules
    learn_service(arm, attempt, attempt.prefill_s + attempt.compute_s, others)
    learn_joules(arm, attempt, joules)
    before = state.mean_joules[attempt.kind]
    if joules > 0:
        state.mean_joules[attempt.kind] = before * (joules / before) ** SMOOTHING if before > 0.0 else joules
    if attempt.answer_quality > 0:  # measured
        learn_quality(arm, attempt)
        observe_quality(state.classes[attempt.group], attempt.answer_quality, attempt.min_quality)
