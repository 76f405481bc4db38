"""From a measured outcome to joules, slack and reward (PerLLM, arXiv 2405.14636, after the digest 1.2 to 1.4)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

from skyshore.rules.kernel import allocating_kernel, kernel
from skyshore.rules.records import KINDS, OK, Floats, Record, Records, dtype_of, floats, put, rows


@dataclass(frozen=True, slots=True)
class RewardWeights:
    """ω of the three energies and λ of the constraint term. The paper's values are not known to us; ours are 1."""

    transmission: float = 1.0
    inference: float = 1.0
    idle: float = 1.0
    constraint: float = 1.0
    """λ."""


WINDOW = 256
"""Number of latest answers whose joules give the reference."""
STRIDE = WINDOW // 8
"""The reference is computed at each of the first `STRIDE` answers, then once in `STRIDE` answers."""
QUANTILE = 0.95

REWARD = dtype_of("reference_joules transmission inference idle constraint", "seen")
"""Per kind of task: E_ref, the weights ω of the three energies, the weight λ of the constraint term, answers seen."""


class Rewards(NamedTuple):
    """State of the common reward, one entry a kind."""

    rewards: Records
    window: Floats
    """[kinds][WINDOW] joules of the last answers, the oldest overwritten."""


def blank_rewards(weights: RewardWeights) -> Rewards:
    """No answer seen: the reference is 1 J. Plain rows and lists."""
    rewards = rows(REWARD, KINDS, arrays=False)
    for reward in rewards:
        reward.reference_joules = 1.0
        put(reward, asdict(weights))
    return Rewards(rewards, floats(KINDS, WINDOW, arrays=False))


@kernel
def weighted_joules(attempt: Record, weights: Record) -> float:
    """ω_tran·E_tran + ω_infer·E_infer + ω_idle·E_idle, in joules, all measured."""
    return float(
        weights.transmission * attempt.transmission_joules
        + weights.inference * attempt.inference_joules
        + weights.idle * attempt.idle_joules
    )


@kernel
def measured_slack(answered: bool, latency_s: float, deadline_s: float, resource_slack: float) -> float:
    """Digest eq. 3: least of the deadline's measured slack and the resources' at dispatch; −1 for a failure.

    The deadline's is the share of its seconds left over, not below −1.
    """
    return min(max((deadline_s - latency_s) / deadline_s, -1.0), resource_slack) if answered else -1.0


@kernel
def common_reward(joules: float, reference_joules: float, slack: float, weight: float) -> float:
    """R = −E / E_ref + λ·f. E / E_ref is cut at 2, so that one outlier cannot dominate an arm's mean."""
    return -min(joules / reference_joules, 2.0) + weight * slack


@allocating_kernel
def quantile(ascending: Floats, count: int, share: float) -> float:
    """Linear interpolation between order statistics, as numpy's default."""
    place = share * (count - 1)
    below = int(place)
    low, high = ascending[below], ascending[min(below + 1, count - 1)]
    rest = place - below
    return float(low + (high - low) * rest if rest < 0.5 else high - (high - low) * (1.0 - rest))


@allocating_kernel
def sample_quantile(values: Floats, share: float) -> float:
    """`quantile` of values in any order."""
    return quantile(sorted(values), len(values), share)


@kernel
def observe_joules(reward: Record, window: Floats, joules: float) -> None:
    """Move the reference: the 95th percentile of the last `WINDOW` answers' joules."""
    window[reward.seen % WINDOW] = joules
    reward.seen += 1
    if reward.seen < STRIDE or reward.seen % STRIDE == 0:
        value = sample_quantile(window[: min(reward.seen, WINDOW)], QUANTILE)
        reward.reference_joules = value if value != 0.0 else 1.0


@kernel
def note_reward(state: Rewards, attempt: Record) -> None:
    """Write the reward of an attempt that ended, in [−2 − λ, λ]; the reference moves with it."""
    reward = state.rewards[attempt.kind]
    joules = weighted_joules(attempt, reward)
    answered = attempt.status == OK
    if answered and joules > 0:
        observe_joules(reward, state.window[attempt.kind], joules)
    slack = measured_slack(answered, attempt.measured_s, attempt.deadline_s, attempt.spare_share)
    attempt.reward = common_reward(joules, reward.reference_joules, slack, reward.constraint)
