"""DDS: server-driven streaming; a poor picture first, better pixels where the server asks for them. As far as it goes.

Ports: Du et al., "Server-driven video streaming for deep learning inference" (SIGCOMM 2020): the camera sends every
segment in low quality, the server's detector answers with the regions it is unsure of, and those are sent again in high
quality; which low and high quality is set by how much bandwidth there is.

What a placement policy can express: one arm per segment, so one quality per segment, whole frames, cloud only. So the
first pass is an arm of low bytes, and the second pass comes one segment late: when the server was unsure of a stream's
last low-quality segment (its measured quality fell short of what was asked, or of the arm's stated quality by
`unsure`), the stream's next segment is sent in high quality, after which it starts low again. High means the most
accurate cloud arm, low the leanest of the same node, each among those that the link can carry in time (bytes over its
measured rate within `share` of the deadline). Left out, because no single placement can say it: regions of interest,
hence most of DDS's saving in bytes; sending the same segment twice; mixing qualities within a frame. Where nobody
measures quality, outcomes repeat the arm's word, the server is never unsure, and every segment goes lean.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from skyshore.domain.outcome import OutcomeStatus
from skyshore.policies.protocol import REFUSED, Arms, Context, Decision, Feedback, Policy

REMEMBERED = 4096
"""Streams whose last answer is kept."""


class Dds(Policy):
    """Low first; high once where low was not good enough."""

    def __init__(self, rng: np.random.Generator, *, unsure: float = 0.05, share: float = 0.9) -> None:
        """The generator is not needed: exact ties go to the first row."""
        self._unsure, self._share = unsure, share
        self._asked: OrderedDict[str, bool] = OrderedDict()
        """Stream → whether the server asked for better pixels."""

    def select(self, context: Context, arms: Arms) -> Decision:
        """Score: minus bytes in the first pass, accuracy in the second; edge arms score minus infinity."""
        if not arms.is_cloud.any():
            return Decision(REFUSED, reason="no cloud arm has room, and this policy uses no other", transient=True)
        second = self._asked.pop(_stream(context), False)
        in_time = arms.is_cloud & (arms.latency_s <= self._share * context.remaining_s)
        if not in_time.any():
            scores = np.where(arms.is_cloud, -arms.latency_s, -np.inf)
        elif second:
            scores = np.where(in_time, arms.quality, -np.inf)
        else:
            leanness = arms.up_bytes / max(float(arms.up_bytes.max()), 1.0)
            scores = np.where(in_time, arms.quality * 1e-3 - leanness, -np.inf)  # of equal bytes, the more accurate
        return Decision(int(scores.argmax()), scores=scores, features=(float(second),))

    def update(self, feedback: Feedback) -> None:
        """Note whether the server was sure of what it saw."""
        outcome, task = feedback.outcome, feedback.context.task
        if outcome.status is not OutcomeStatus.OK or outcome.quality <= 0:
            return
        wanted = max(task.min_quality, feedback.arm.quality - self._unsure)
        stream = _stream(feedback.context)
        self._asked[stream] = outcome.quality < wanted
        self._asked.move_to_end(stream)
        if len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)


def _stream(context: Context) -> str:
    """Segments of one upload or camera belong together; a task alone is a stream of its own."""
    return context.task.job_id or context.task.task_id
