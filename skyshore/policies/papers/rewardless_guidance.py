"""RewardlessGuidance: active inference by an ensemble world model and cross-entropy planning.

Ports: He, Fang, Yu and Leung (IEEE TMC 2024, DOI 10.1109/TMC.2024.3415661; digest 3.5). There is no learned value
function. The score of a plan is its information gain plus the guidance:

    r = r₁ + rg,    r₁ = expected information gain of the world model,    rg(s, a) = tc·(1/L + P)

tc is 1 if the task completes within its limit, else 0. L is its delay in seconds, P the quality of the answer. The
planner draws `candidates` plans from a distribution q, scores them and refits q on the best ones. It repeats this
`iterations` times and takes the first step of the result. The world model is fitted after each episode.

Our choices: a plan is the arms of this task and of `horizon` − 1 more tasks like it. Each task lengthens the queue of
the later ones on its node. The world model (`WorldModel`, five members) predicts log(L / estimate) and the probability
of completion from `arm_features`. r₁ is the variance of its members' log L, a common approximation of information gain.
An episode is 32 outcomes. The planner draws its random numbers once, when it is built. So a decision is a function of
its context, and its propensity is 1. Left out: the shares of compute, bandwidth and memory in the paper's action, and
the failure by over-allocation. No engine here grants shares, and eligibility already excludes full nodes.
"""

from __future__ import annotations

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.policies.learning.arm_features import MOST_SHARE, WIDTH, arm_features
from skyshore.policies.learning.snapshot import join_parts, split_parts
from skyshore.policies.papers.world_model import WorldModel
from skyshore.policies.protocol import Arms, Context, Decision, Feedback, Floats, Integers, Policy

FORMAT = "rewardless_guidance/1"
SHORTEST_S = 0.1
"""Smallest L that counts in 1/L."""
EPISODE = 32
"""Outcomes between two fits of the world model."""
FIT_STEPS = 12
ELITE_SHARE = 0.125
"""Share of the candidates on which q is refitted: the best ones."""
LARGEST_LOG_RATIO = 2.0
PRIOR_COMPLETION = 6.0
"""Prior slope of the probability of completion over the estimated slack of the deadline."""
QUEUE, TAKEN = 2, 4
"""Columns of `arm_features` that an imagined task changes."""


class RewardlessGuidance(Policy):
    """Plans with one world model per kind of task."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        horizon: int = 4,
        candidates: int = 96,
        iterations: int = 4,
        curiosity: float = 1.0,
    ) -> None:
        """`curiosity` weighs r₁."""
        self._horizon, self._iterations, self._curiosity = horizon, iterations, curiosity
        draws = rng.random((iterations, candidates, horizon))
        self._draws: Floats = np.ascontiguousarray(draws.transpose(0, 2, 1))  # [iterations, horizon, candidates]
        self._elite = max(int(ELITE_SHARE * candidates), 1)
        self._worlds = {kind: WorldModel(rng, WIDTH, 2) for kind in TaskKind}
        self._since_fit = 0

    def select(self, context: Context, arms: Arms) -> Decision:
        """First step of the best plan found; the scores are those of single steps."""
        merits = self._merits(context, arms)
        if len(arms) == 1:
            return Decision(0, scores=merits[0])
        return Decision(self._plan_first(merits, arms.node), scores=merits[0])

    def update(self, feedback: Feedback) -> None:
        """Store the outcome; fit the world models after each episode."""
        arm, outcome = feedback.arm, feedback.outcome
        world = self._worlds[feedback.context.task.kind]
        ratio = float(np.log(max(outcome.latency_s, 1e-3) / max(arm.latency_s, 1e-3)))
        log_ratio = min(max(ratio, -LARGEST_LOG_RATIO), LARGEST_LOG_RATIO)
        completion = float(outcome.met_deadline) - float(_stated_completion(arm.latency_s, feedback.context))
        world.observe(arm_features(arm, feedback.context), (log_ratio, completion))
        self._since_fit += 1
        if self._since_fit >= EPISODE:
            self._since_fit = 0
            for each in self._worlds.values():
                each.fit(FIT_STEPS)

    def snapshot(self) -> bytes:
        """World models, without the stored outcomes."""
        return join_parts([world.snapshot(FORMAT) for world in self._worlds.values()])

    def restore(self, snapshot: bytes) -> None:
        """See Policy."""
        for world, part in zip(self._worlds.values(), split_parts(snapshot, len(self._worlds)), strict=True):
            world.restore(FORMAT, part)

    def _merits(self, context: Context, arms: Arms) -> Floats:
        """[horizon, arms] r of each arm after 0, 1, … earlier tasks of the plan on its node."""
        depth, number = self._horizon, len(arms)
        features = np.empty((depth, number, WIDTH))
        features[:] = arm_features(arms, context)
        ahead = np.arange(depth)[:, None]
        taken = arms.load + ahead
        waits = np.minimum(np.maximum(taken - arms.slots + 1.0, 0.0), ahead)  # imagined tasks that find no free slot
        queue_s = arms.queue_s + waits * arms.service_s / arms.slots
        features[..., QUEUE] = np.minimum(queue_s / max(context.remaining_s, 1e-3), MOST_SHARE)
        features[..., TAKEN] = np.minimum(taken / arms.slots, 1.0)
        latency_s = arms.transmission_s + queue_s + arms.service_s
        guesses = self._worlds[context.task.kind].predict(features.reshape(-1, WIDTH))
        means = np.add.reduce(guesses, axis=0) / len(guesses)
        deviations = guesses[..., 0] - means[:, 0]
        variance = np.add.reduce(deviations * deviations, axis=0) / len(guesses)
        log_ratio, completion = means.T.reshape(2, depth, number)
        log_ratio = np.minimum(np.maximum(log_ratio, -LARGEST_LOG_RATIO), LARGEST_LOG_RATIO)
        completes = np.minimum(np.maximum(_stated_completion(latency_s, context) + completion, 0.0), 1.0)
        delay_s = np.maximum(latency_s * np.exp(log_ratio), SHORTEST_S)
        guidance = completes * (1.0 / delay_s + arms.quality)
        return np.asarray(guidance + self._curiosity * variance.reshape(depth, number), np.float64)

    def _plan_first(self, merits: Floats, node: Integers) -> int:
        """Cross-entropy search over plans [horizon]. Returns the most probable first arm of the final distribution."""
        depth, number = merits.shape
        arms = np.arange(number)
        hopes = np.exp((merits[0] - merits[0].max()) / max(float(np.ptp(merits[0])), 1e-9))
        chances: Floats = np.tile(hopes / hopes.sum(), (depth, 1))
        for draws in self._draws:
            bounds = chances.cumsum(axis=1)[:, :-1].T[..., None]
            plans = np.add.reduce(bounds <= draws, axis=0, dtype=np.intp)
            best = (-plan_values(plans, merits, node)).argsort(kind="stable")[: self._elite]
            counts = np.add.reduce(plans[:, best, None] == arms, axis=1, dtype=np.intp)
            chances = 0.3 * chances + 0.7 * counts / len(best)
        return int(chances[0].argmax())


def plan_values(plans: Integers, merits: Floats, node: Integers) -> Floats:
    """Sum of r over each plan [horizon, plans]. A step on a node that the plan used k times before has r of row k."""
    nodes, places = node.take(plans), plans.copy()
    for step in range(1, len(plans)):
        places[step:] += merits.shape[1] * (nodes[step:] == nodes[step - 1])
    return np.asarray(np.add.reduce(merits.take(places), axis=0), np.float64)


def _stated_completion(latency_s: Floats | float, context: Context) -> Floats:
    slack = 1.0 - latency_s / max(context.remaining_s, 1e-3)
    exponent = np.minimum(np.maximum(PRIOR_COMPLETION * slack, -30.0), 30.0)
    return np.asarray(1.0 / (1.0 + np.exp(-exponent)), np.float64)
