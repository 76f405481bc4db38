"""CS-UCB: constraint satisfaction plus upper confidence bound, of PerLLM (arXiv 2405.14636).

From the paper (the digest marks what comes from secondary sources): an arm is a pair of service class k and node
configuration a. A scalar f, the least normalised slack (eq. 3), is at least 0 if all constraints hold. Among the arms
with f ≥ 0 the policy takes the one with the largest

    U(k, a) = R(k, a) / N(k, a) + δ·√(ln t / N(k, a)) + θ·P(a),    P = min(f, 0)

U is infinite for an arm that was never pulled. Reward: −E / E_ref + λ·f, both measured (`skyshore.rules.reward`).

Our choices, where we found nothing in the paper: updates use measured outcomes, which may come late, and never the
estimate. N and R are discounted (γ), and t is the discounted number of outcomes of the class. Ties are broken at
random. δ = 0.5 and θ = 1 (the grid of a re-implementation gave δ = 0.5). If no arm has f ≥ 0, `infeasible` names the
rule. With `slot_s` the arrivals of a slot are placed together, nearest deadline first. Each sees the capacity that the
tasks before it have reserved (the paper's super-arm). The scheduler core does that batching.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.policies.kernel_policy import KIND_NUMBERS, KernelPolicy
from skyshore.policies.learning.class_statistics import fill_statistics, pack_statistics
from skyshore.policies.learning.snapshot import join_parts, split_parts, unpack
from skyshore.rules.choose import learn, score_by_load, select_arm, take_best
from skyshore.rules.confidence import confidence_index
from skyshore.rules.kernel import implement, kernel
from skyshore.rules.records import NONE, Options, Record, Records, dtype_of, rows
from skyshore.rules.slack import least_slack
from skyshore.rules.statistics import Statistics, blank_statistics, forget_arm, learn_reward, mean_reward, with_slots

FORMAT = "cs_ucb/1"
INFEASIBLE = ("largest_slack", "least_loaded", "reject")
_, LEAST_LOADED, REJECT = range(3)
FIRST_ARMS = 16

SETTINGS = dtype_of("delta theta discount", "constrain explore infeasible")


class CsUcbState(NamedTuple):
    """Settings and what was learned."""

    settings: Records
    statistics: Statistics
    rng: np.random.Generator


@implement(select_arm, CsUcbState)
def select_cs_ucb(state: CsUcbState, demand: Record, options: Options) -> None:
    """Keep the arms with f ≥ 0, then take the largest index U."""
    settings, decision = state.settings[0], options.decision[0]
    total = state.statistics.totals[demand.kind][demand.group]
    counts = state.statistics.counts[demand.kind][demand.group]
    sums = state.statistics.sums[demand.kind][demand.group]
    log_total = max(math.log(total), 0.0) if total > 0 else 0.0
    some_hold = False
    for index in range(decision.count):
        estimate = options.estimates[index]
        slack = least_slack(estimate, demand.remaining_s)
        count = counts[estimate.slot]
        score = math.inf
        if not settings.explore:
            score = -estimate.joules
        elif total > 0 and count > 0:
            mean = mean_reward(sums[estimate.slot], count)
            score = confidence_index(mean, count, log_total, slack, settings.delta, settings.theta)
        if slack >= 0:
            some_hold = True
        elif settings.constrain:
            score = -math.inf
        options.scores[index] = score
    if some_hold or not settings.constrain:
        take_best(state.rng, options)
    else:
        choose_infeasible(state, demand, options)


@kernel
def choose_infeasible(state: CsUcbState, demand: Record, options: Options) -> None:
    """Choose an arm, or refuse, when no arm has f ≥ 0."""
    settings, decision = state.settings[0], options.decision[0]
    if settings.infeasible == LEAST_LOADED:
        score_by_load(options)
    else:
        for index in range(decision.count):
            options.scores[index] = least_slack(options.estimates[index], demand.remaining_s)
    if settings.infeasible == REJECT:
        decision.index, decision.scores, decision.transient = NONE, 1, 1
    else:
        take_best(state.rng, options)


@implement(learn, CsUcbState)
def learn_cs_ucb(state: CsUcbState, attempt: Record, now_s: float) -> None:
    """Semi-bandit feedback: the reward of the arm that ran the task."""
    discount = state.settings[0].discount
    learn_reward(state.statistics, attempt.kind, attempt.group, attempt.slot, attempt.reward, discount)


class CsUcb(KernelPolicy):
    """The paper's policy and its ablations.

    Without `constrain` there is no filter (UCB only). Without `explore` there is no bandit: the arm with f ≥ 0 and the
    fewest estimated joules is taken. `theta` weighs the penalty in the index; it matters only without the filter.
    """

    state: CsUcbState

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        delta: float = 0.5,
        theta: float = 1.0,
        discount: float = 0.999,
        constrain: bool = True,
        explore: bool = True,
        infeasible: str = "largest_slack",
        slot_s: float = 0.0,
    ) -> None:
        """Raises ValueError for a setting out of range."""
        if infeasible not in INFEASIBLE:
            raise ValueError(f"infeasible must be one of {', '.join(INFEASIBLE)}, not '{infeasible}'")
        if not 0 < discount <= 1:
            raise ValueError(f"discount must lie in (0, 1], not {discount}")
        super().__init__()
        self.slot_s = slot_s
        settings = rows(SETTINGS, 1, arrays=False)
        settings[0].delta, settings[0].theta, settings[0].discount = delta, theta, discount
        settings[0].constrain, settings[0].explore = int(constrain), int(explore)
        settings[0].infeasible = INFEASIBLE.index(infeasible)
        self.state = CsUcbState(settings, blank_statistics(FIRST_ARMS), rng)

    def prepare_arm(self, kind: int, slot: int) -> None:
        """See KernelPolicy."""
        statistics = with_slots(self.state.statistics, slot + 1)
        forget_arm(statistics, kind, slot)
        self.state = self.state._replace(statistics=statistics)

    def reason(self, features: tuple[float, ...]) -> str:
        """See KernelPolicy."""
        return "no arm would keep the deadline"

    def snapshot(self) -> bytes:
        """Counts and sums of every kind."""
        statistics, groups = self.state.statistics, self.known_groups()
        return join_parts(
            [
                pack_statistics(FORMAT, statistics, number, groups, self.known_arms(kind))
                for kind, number in KIND_NUMBERS.items()
            ]
        )

    def restore(self, snapshot: bytes) -> None:
        """See SavedPolicy."""
        parts = [unpack(FORMAT, part) for part in split_parts(snapshot, len(TaskKind))]
        arrays = self.arrays
        self.use(arrays=False)
        statistics = blank_statistics(len(self.state.statistics.counts[0][0]))
        self.state = self.state._replace(statistics=statistics)
        for (kind, number), part in zip(KIND_NUMBERS.items(), parts, strict=True):
            fill_statistics(statistics, number, part, self.group, partial(self.arm_number, kind))
        self.use(arrays=arrays)
