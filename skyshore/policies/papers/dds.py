"""DDS, server-driven streaming: segments are sent in low quality, and in high quality after a poor answer.

Ports: Du et al., "Server-driven video streaming for deep learning inference" (SIGCOMM 2020). There the camera sends
every segment in low quality, and the server's detector answers with the regions that it is unsure of. The camera sends
those again in high quality. The available bandwidth sets both qualities.

A placement policy chooses one arm per segment, so this port has one quality per segment, whole frames and the cloud
only. The first pass is an arm with few bytes. The second pass comes one segment late: after a poor answer to a stream's
low-quality segment, its next segment is sent in high quality, and the one after that in low quality again. An answer is
poor if its measured quality is below the quality asked for, or more than `unsure` below the arm's stated quality. High
quality is the most accurate cloud arm, low quality the one with the fewest bytes. Only arms whose estimated latency is
at most `share` of the remaining time count.

Left out, because one placement cannot express it: regions of interest (and so most of the bytes that DDS saves), a
second transmission of the same segment, several qualities in one frame. Where quality is not measured, outcomes repeat
the arm's stated quality. Then no answer is poor, and every segment is sent in low quality.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from skyshore.domain.outcome import OutcomeStatus
from skyshore.policies.protocol import REFUSED, Arms, Context, Decision, Feedback, Policy

REMEMBERED = 4096
"""Streams whose last answer is kept."""


class Dds(Policy):
    """Low quality first; high quality once after a poor answer."""

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
        """Note whether the answer was poor, so that the stream's next segment needs high quality."""
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
    """Segments of one upload or camera are one stream; any other task is a stream of its own."""
    return context.task.job_id or context.task.task_id
