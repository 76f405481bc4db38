"""A²: joint model and data adaptation, in the cloud only.

Ports: "A²: joint model and data adaptation for cloud inference serving" (RTSS 2021). We did not have the paper; this
follows summaries of it (digest 2.5). The cloud has several models, and data can be sent in several sizes. For each
request the policy takes the most accurate pair that answers in time, network included. So fast links get large inputs,
and slow links small ones.

Here a pair is a cloud arm (model, input size, encoding). Its time is the estimated latency times a learned factor per
arm (the discounted mean of measured / estimated latency). It must fit into `share` of the remaining time. Among equally
accurate arms the fastest is taken; if no arm fits, the fastest of all. Left out: A²'s profiler of networks (the
scheduler core measures links) and its placement of models onto GPUs, which is fixed here.
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
from skyshore.rules.choose import learn, select_arm, take_first_best
from skyshore.rules.kernel import implement, kernel
from skyshore.rules.records import FAILED, Options, Record
from skyshore.rules.statistics import Statistics, blank_statistics, forget_arm, learn_reward, mean_reward, with_slots

FORMAT = "a2/1"
DISCOUNT = 0.98
LARGEST_RATIO = 5.0
CUT_OFF = 1.5
ANY = {"any": 0}
"""One factor per arm, the same for all service classes."""
FIRST_ARMS = 16


class A2State(NamedTuple):
    """The usable share of the deadline, and measured / estimated latency per arm."""

    share: float
    ratios: Statistics


@implement(select_arm, A2State)
def select_a2(state: A2State, demand: Record, options: Options) -> None:
    """Score: accuracy, then speed; edge arms score minus infinity."""
    decision, scores = options.decision[0], options.scores
    slowest_s, some_cloud = -math.inf, False
    for index in range(decision.count):
        estimate = options.estimates[index]
        scores[index] = corrected_latency_s(state, demand, estimate)
        slowest_s = max(slowest_s, scores[index])
        if estimate.is_cloud:
            some_cloud = True
    if not some_cloud:
        decision.transient = 1
        return
    for index in range(decision.count):
        estimate, latency_s = options.estimates[index], scores[index]
        slowness = latency_s / (slowest_s + 1e-9)
        scores[index] = -slowness
        if latency_s <= state.share * demand.remaining_s:
            # Qualities are stated to three places, so a thousandth of speed decides between equals only.
            scores[index] = 1.0 + estimate.quality - 1e-4 * slowness
        if not estimate.is_cloud:
            scores[index] = -math.inf
    take_first_best(options)


@kernel
def corrected_latency_s(state: A2State, demand: Record, estimate: Record) -> float:
    """Estimated latency times the learned factor of the arm."""
    seen = state.ratios.counts[demand.kind][demand.group][estimate.slot]
    ratio = mean_reward(state.ratios.sums[demand.kind][demand.group][estimate.slot], seen) if seen > 0 else 1.0
    return float(estimate.latency_s * ratio)


@implement(learn, A2State)
def learn_a2(state: A2State, attempt: Record, now_s: float) -> None:
    """Learn measured / estimated latency. A task that was cut off is assumed to need `CUT_OFF` times as long."""
    if attempt.status != FAILED:
        took_s = attempt.measured_s * (1.0 if attempt.answered else CUT_OFF)
        ratio = min(took_s / max(attempt.latency_s, 1e-3), LARGEST_RATIO)
        learn_reward(state.ratios, attempt.kind, attempt.group, attempt.slot, ratio, DISCOUNT)


class A2(KernelPolicy):
    """Takes the most accurate cloud arm that answers in time."""

    state: A2State

    def __init__(self, rng: np.random.Generator, *, share: float = 0.9) -> None:
        """The generator is not needed. `share` is the usable share of the remaining time."""
        super().__init__()
        self.state = A2State(float(share), blank_statistics(FIRST_ARMS, len(ANY)))

    def group(self, service_class: str) -> int:
        """One group for all."""
        return 0

    def prepare_arm(self, kind: int, slot: int) -> None:
        """See KernelPolicy."""
        ratios = with_slots(self.state.ratios, slot + 1)
        forget_arm(ratios, kind, slot)
        self.state = self.state._replace(ratios=ratios)

    def reason(self, features: tuple[float, ...]) -> str:
        """See KernelPolicy."""
        return "no cloud arm has room, and this policy uses no other"

    def snapshot(self) -> bytes:
        """Factors of every kind."""
        ratios = self.state.ratios
        return join_parts(
            [
                pack_statistics(FORMAT, ratios, number, ANY, self.known_arms(kind))
                for kind, number in KIND_NUMBERS.items()
            ]
        )

    def restore(self, snapshot: bytes) -> None:
        """See SavedPolicy."""
        parts = [unpack(FORMAT, part) for part in split_parts(snapshot, len(TaskKind))]
        arrays = self.arrays
        self.use(arrays=False)
        ratios = blank_statistics(len(self.state.ratios.counts[0][0]), len(ANY))
        self.state = self.state._replace(ratios=ratios)
        for (kind, number), part in zip(KIND_NUMBERS.items(), parts, strict=True):
            fill_statistics(ratios, number, part, ANY.__getitem__, partial(self.arm_number, kind))
        self.use(arrays=arrays)
