"""A²: joint model and data adaptation, in the cloud alone.

Ports: "A²: joint model and data adaptation for cloud inference serving" (RTSS 2021), from what is generally known of it
(digest 2.5; the paper itself was not at hand): the cloud holds several models, and sends for the data at several sizes;
for each request the pair is chosen that is most accurate among those that answer in time, network included, so that
fast links get large inputs and slow ones small.

Here a pair is a cloud arm (model, input size, encoding). Time is the estimate times a learned factor per arm (a mean of
measured over estimated, with forgetting), and must fit in `share` of what is left of the deadline; among equally
accurate arms the quickest wins, and when none fits the quickest of all. Left out: A²'s profiler of networks (the core
measures links) and its placement of models onto GPUs, which are fixed here.
"""

from __future__ import annotations

import numpy as np

from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.policies.learning.class_statistics import ClassStatistics
from skyshore.policies.learning.snapshot import join_parts, split_parts
from skyshore.policies.protocol import REFUSED, Arms, Context, Decision, Feedback, Policy

FORMAT = "a2/1"
DISCOUNT = 0.98
LARGEST_RATIO = 5.0
CUT_OFF = 1.5
ANY = "any"
"""One factor per arm, whatever the class."""


class A2(Policy):
    """Most accurate cloud arm in time."""

    def __init__(self, rng: np.random.Generator, *, share: float = 0.9) -> None:
        """The generator is not needed. `share` of the deadline may be planned for."""
        self._share = share
        self._ratios = self._fresh()

    def select(self, context: Context, arms: Arms) -> Decision:
        """Score: accuracy, then speed; edge arms score minus infinity."""
        if not arms.is_cloud.any():
            return Decision(REFUSED, reason="no cloud arm has room, and this policy uses no other", transient=True)
        seen, ratio, _ = self._ratios[context.task.kind].read(ANY, arms)
        latency_s = arms.latency_s * np.where(seen > 0, ratio, 1.0)
        slowness = latency_s / (latency_s.max() + 1e-9)
        in_time = latency_s <= self._share * context.remaining_s
        # Qualities are stated to three places, so a thousandth of speed decides between equals only.
        scores = np.where(in_time, 1.0 + arms.quality - 1e-4 * slowness, -slowness)
        scores = np.where(arms.is_cloud, scores, -np.inf)
        return Decision(int(scores.argmax()), scores=scores)

    def update(self, feedback: Feedback) -> None:
        """Learn measured over estimated latency; one cut off would have taken longer, by half as is assumed."""
        if feedback.outcome.status is OutcomeStatus.FAILED:
            return
        took_s = feedback.outcome.latency_s * (1.0 if feedback.outcome.status is OutcomeStatus.OK else CUT_OFF)
        ratio = min(took_s / max(feedback.arm.latency_s, 1e-3), LARGEST_RATIO)
        self._ratios[feedback.context.task.kind].learn(ANY, feedback.arm.arm_id, ratio)

    def snapshot(self) -> bytes:
        """Factors of every kind."""
        return join_parts([ratios.snapshot(FORMAT) for ratios in self._ratios.values()])

    def restore(self, snapshot: bytes) -> None:
        """See Policy."""
        fresh = self._fresh()
        for ratios, part in zip(fresh.values(), split_parts(snapshot, len(fresh)), strict=True):
            ratios.restore(FORMAT, part)
        self._ratios = fresh

    def _fresh(self) -> dict[TaskKind, ClassStatistics]:
        return {kind: ClassStatistics(DISCOUNT) for kind in TaskKind}
