"""What the policy `skyshore` learns about each arm: the error of its stated speed, energy and quality.

The scheduler's estimates depend on the task (prompt, frames, queue, link). A few learned factors per arm correct them,
so an outcome of one size teaches about tasks of every size:

    service  = stated service · (u₀ + u₁·c)      seconds; c = share of the arm's slots that other tasks take
    latency  = start + queue·u₀ + service + rest  seconds; start: the task's bytes are there and its engine is free
    joules   = stated joules · (v₀ + v₁/n)        n = tasks on the node, this one included: a batch shares its work
    σ        = mean of |measured − predicted| / predicted latency

u and v are ridge regressions of two weights each, with forgetting. Their priors are (1, 1) and (½, ½). So the stated
figures of a new arm are used, but it is assumed to be twice as slow with all slots taken, and half of the joules of a
task that is alone are assumed to be shared. v₀ is the share that one more task adds to a working node, v₁ the share
that is spent to keep the node working for that task alone.
"""

from __future__ import annotations

import math

from skyshore.rules.kernel import kernel
from skyshore.rules.records import Floats, Record, Records, dtype_of

ARM_FIGURES = (
    "service_base service_slope joules_base joules_slope rest_s sigma count quality_offset failed_share failed_at_s "
    "load_growth"
)
SUMS = 5
"""Sums that a regression keeps: of weight, x, x², y and x·y."""
ARM_MODEL = dtype_of(ARM_FIGURES, "", ("service_sums", "f8", (SUMS,)), ("joules_sums", "f8", (SUMS,)))
"""u₀, u₁, v₀, v₁, `rest_s` and σ as above. `count`: outcomes, old ones forgotten. `quality_offset`: measured minus
stated quality. `failed_share`: share of failures as of `failed_at_s`. `load_growth`: how many more tasks were on the
node over a task's stay than when it was placed."""

FORGET = 0.98
"""Share of the past that is kept per outcome of the same arm: half is left after 35 outcomes."""
PRIOR_OUTCOMES = 5.0
"""Weight of the prior, in outcomes."""
SERVICE_PRIOR = (1.0, 1.0)
JOULES_PRIOR = (0.5, 0.5)
FIRST_SIGMA = 0.25
LEAST_SIGMA = 0.02
LARGEST_ERROR = 2.0
"""Limit of a relative error, so that one outlier does not ruin σ."""
LEAST_SHARE = 0.25
"""A predicted latency is at least this share of the stated transmission and service time."""
LEAST_JOULES_SHARE = 0.02
"""A task is predicted to add at least this share of its stated joules."""
UNKNOWN_WATTS = 10.0
"""Power of an arm that states none, so that its joules can be learned as a multiple."""
FAILURE_MEMORY_S = 30.0
"""Time constant of the failure share: it halves in 21 s."""
LARGEST_RATIO = 50.0


@kernel
def blank_arm_model(arms: Records, place: int) -> None:
    """Set a row to the priors."""
    arm = arms[place]
    arm.service_base, arm.service_slope = SERVICE_PRIOR
    arm.joules_base, arm.joules_slope = JOULES_PRIOR
    arm.rest_s, arm.sigma, arm.count = 0.0, FIRST_SIGMA, 0.0
    arm.quality_offset, arm.failed_share, arm.failed_at_s, arm.load_growth = 0.0, 0.0, 0.0, 0.0
    for index in range(SUMS):
        arm.service_sums[index] = 0.0
        arm.joules_sums[index] = 0.0


@kernel
def taken_share(others: float, slots: float) -> float:
    """c: share of the slots that `others` tasks take beside ours."""
    if others < 0.0:
        return 0.0
    return (others if others < slots - 1.0 else slots - 1.0) / slots


@kernel
def stated_joules(estimate: Record) -> float:
    """The joules of the estimate; if the arm states no power, those of `UNKNOWN_WATTS`."""
    return float(estimate.joules if estimate.joules > 0.0 else UNKNOWN_WATTS * estimate.service_s)


@kernel
def predicted_latency_s(estimate: Record, arm: Record, start_s: float, queue_s: float) -> float:
    """Predicted latency in seconds; `start_s` and `queue_s` are the times before the service."""
    service_s, base = estimate.service_s, arm.service_base
    taken = taken_share(estimate.load + arm.load_growth, estimate.slots)
    latency_s = start_s + queue_s * base + service_s * (base + arm.service_slope * taken) + arm.rest_s
    least_s = LEAST_SHARE * (estimate.transmission_s + service_s) + 1e-3
    return float(latency_s if latency_s > least_s else least_s)


@kernel
def failure_weight(failed_at_s: float, now_s: float) -> float:
    """Weight of the failure share now: exp(−age / memory)."""
    return math.exp(-max(now_s - failed_at_s, 0.0) / FAILURE_MEMORY_S)


@kernel
def learn_failure(arm: Record, now_s: float, failed: bool) -> None:
    """Learn whether the arm answered."""
    before = arm.failed_share * failure_weight(arm.failed_at_s, now_s)
    arm.failed_share = 0.8 * before + (0.2 if failed else 0.0)
    arm.failed_at_s = now_s


@kernel
def learn_service(arm: Record, attempt: Record, service_s: float, others: float) -> None:
    """Learn a measured service time in seconds; `others`: mean number of other tasks on the node."""
    if attempt.service_s > 0:
        ratio, taken = min(service_s / attempt.service_s, LARGEST_RATIO), taken_share(others, attempt.slots)
        arm.service_base, arm.service_slope = regress(
            arm.service_sums, taken, ratio, SERVICE_PRIOR[0], SERVICE_PRIOR[1]
        )


@kernel
def learn_joules(arm: Record, attempt: Record, joules: float) -> None:
    """Learn measured joules, without the idle share."""
    stated = stated_joules(attempt)
    ratio = min(joules / (stated if stated > 0.0 else UNKNOWN_WATTS * 1e-6), LARGEST_RATIO)
    alone = 1.0 / (1.0 + attempt.load)
    arm.joules_base, arm.joules_slope = regress(arm.joules_sums, alone, ratio, JOULES_PRIOR[0], JOULES_PRIOR[1])


@kernel
def learn_load_growth(arm: Record, attempt: Record, others: float) -> None:
    """Learn how many more other tasks there were on average than when the task was placed."""
    weight = PRIOR_OUTCOMES + min(arm.count, 20.0)
    arm.load_growth += (others - attempt.load - arm.load_growth) / weight


@kernel
def learn_latency(arm: Record, measured_s: float, predicted_s: float) -> None:
    """Learn from a measured and a predicted latency; count the outcome."""
    weight = 1.0 / (PRIOR_OUTCOMES + 3.0 + arm.count)
    error_s = measured_s - predicted_s
    arm.rest_s += weight * error_s
    relative = min(abs(error_s) / predicted_s, LARGEST_ERROR)
    arm.sigma = max(arm.sigma + weight * (relative - arm.sigma), LEAST_SIGMA)
    arm.count = FORGET * arm.count + 1.0


@kernel
def learn_quality(arm: Record, attempt: Record) -> None:
    """Learn a measured quality."""
    arm.quality_offset += (attempt.answer_quality - attempt.quality - arm.quality_offset) / (10.0 + arm.count)


@kernel
def regress(sums: Floats, x: float, y: float, first: float, second: float) -> tuple[float, float]:
    """Add a sample and solve min Σ wᵢ·(yᵢ − a − b·xᵢ)² + 5·((a − first)² + (b − second)²) for a and b."""
    sums[0] = sums[0] * FORGET + 1.0
    sums[1] = sums[1] * FORGET + x
    sums[2] = sums[2] * FORGET + x * x
    sums[3] = sums[3] * FORGET + y
    sums[4] = sums[4] * FORGET + x * y
    weight, sum_x, sum_xx = sums[0] + PRIOR_OUTCOMES, sums[1], sums[2] + PRIOR_OUTCOMES
    sum_y, sum_xy = sums[3] + PRIOR_OUTCOMES * first, sums[4] + PRIOR_OUTCOMES * second
    determinant = weight * sum_xx - sum_x * sum_x
    return (sum_xx * sum_y - sum_x * sum_xy) / determinant, (weight * sum_xy - sum_x * sum_y) / determinant
