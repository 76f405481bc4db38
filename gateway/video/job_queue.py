"""Decides which job begins next. Pure: time is an argument, and the same input gives the same choice.

The rules, in this order:

1. No more than `slots` jobs run. With two or more slots, one of them is kept for short clips.
2. Of the jobs that were begun before and failed or lost their gateway, one at a time runs until it has finished a part.
   So the job that ends its gateway is found, and does not take others with it.
3. A caller with fewer running jobs goes first.
4. A job that is due goes before one that is not; then the higher class, the earlier due time, the earlier arrival.

No job starves while running jobs end: a caller whose jobs have all ended is in the first place of rule 3, and there its
oldest job becomes due, after which only jobs that were due earlier go before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from skyshore.domain.job import JobRank, WaitingJob

LEAST_PICTURE_PIXELS = 320 * 320
"""A smaller picture costs as much as this: a detector scales it up."""
SHORT_PIXELS = 1e9
"""Work of a short clip: 45 seconds of 1280×720 at 25 frames a second."""


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that has a slot."""

    rank: JobRank
    is_suspect: bool = False
    """Begun before, and no part finished since this start."""


def work_pixels(frames: int, width: int, height: int) -> float:
    """The work that a clip is: frames times pixels, small pictures rounded up."""
    return float(frames) * max(width * height, LEAST_PICTURE_PIXELS)


def next_job(
    waiting: Sequence[WaitingJob], running: Sequence[RunningJob], slots: int, now_s: float
) -> WaitingJob | None:
    """The waiting job to begin now, or None. `now_s` is on the clock of `JobRank.due_at_s`."""
    if len(running) >= slots:
        return None
    is_kept = slots > 1 and sum(map(_is_long, (job.rank for job in running))) >= slots - 1
    has_suspect = any(job.is_suspect for job in running)
    callers = Counter(job.rank.caller for job in running)

    def order(job: WaitingJob) -> tuple[int, bool, int, float, tuple[int, ...]]:
        rank = job.rank
        is_due = rank.due_at_s <= now_s
        arrival = tuple(int(part) for part in job.entry_id.split("-"))
        return callers[rank.caller], not is_due, 0 if is_due else -rank.priority, rank.due_at_s, arrival

    able = (job for job in waiting if not (is_kept and _is_long(job.rank)) and not (has_suspect and job.deliveries))
    return min(able, key=order, default=None)


def _is_long(rank: JobRank) -> bool:
    return rank.work_pixels > SHORT_PIXELS
