"""What a report draws of a cell, collected in bounded memory: latencies, the run over time, the chosen arms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from skyshore.domain.outcome import OutcomeStatus
from skyshore.report.batches import RecordBatches
from skyshore.report.distribution import LogHistogram
from skyshore.report.figures import BATCH
from skyshore.report.request_record import RequestRecord

QUANTILES = (0.5, *range(1, 100), 99.5, 99.9)
BINS = 120
FIRST_BIN_S = 0.25
MOST_ARMS = 40


class RequestTimeline:
    """Counts by time in bins of equal width; the width doubles whenever there would be more than `BINS`."""

    def __init__(self) -> None:
        self.bin_s = FIRST_BIN_S
        self.due: Counter[int] = Counter()
        self.met: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()

    def add(self, due_s: float, done_s: float, met: bool) -> None:
        """One request: when it was due, when it ended, whether in time. `due` and `met` count by when it was due."""
        while max(due_s, done_s) >= self.bin_s * BINS:
            self.bin_s *= 2
            for counts in (self.due, self.met, self.ended):
                halved = Counter[int]()
                for place, count in counts.items():
                    halved[place // 2] += count
                counts.clear()
                counts.update(halved)
        self.due[int(due_s / self.bin_s)] += 1
        self.met[int(due_s / self.bin_s)] += met
        self.ended[int(done_s / self.bin_s)] += 1

    def to_json(self) -> dict[str, Any]:
        """Bin width, and for each bin: due, met, and the requests in the system at its end."""
        last = max([*self.due, *self.ended], default=-1) + 1
        inside, open_now = [], 0
        for place in range(last):
            open_now += self.due[place] - self.ended[place]
            inside.append(open_now)
        columns = {"due": self.due, "met": self.met}
        counts = {name: [column[place] for place in range(last)] for name, column in columns.items()}
        return {"bin_s": self.bin_s, **counts, "inside": inside}


class CurveTally(RecordBatches):
    """A `RecordSink` for the charts of one cell."""

    def __init__(self) -> None:
        super().__init__(BATCH)
        self._latency, self._share = LogHistogram(), LogHistogram()
        self._requests = 0
        self._timeline = RequestTimeline()
        self._arms: Counter[str] = Counter()
        self._tiers: Counter[str] = Counter()

    def to_json(self) -> dict[str, Any]:
        """Plain values: quantiles of the answers, the timeline, tasks by arm (by tier where arms are many)."""
        self.flush()
        places = self._arms if len(self._arms) <= MOST_ARMS else self._tiers
        return {
            "requests": self._requests,
            "answered": self._latency.count,
            "latency_s": _quantiles(self._latency),
            "latency_per_deadline": _quantiles(self._share),
            "timeline": self._timeline.to_json(),
            "places": dict(sorted(places.items())),
        }

    def _take(self, records: Sequence[RequestRecord]) -> None:
        counted = [record for record in records if record.status is not OutcomeStatus.CANCELLED]
        answers = [record for record in counted if record.answered]
        self._requests += len(counted)
        self._latency.add([record.latency_s for record in answers])
        self._share.add([record.latency_s / record.deadline_s for record in answers])
        for record in counted:
            due_s, end_s = record.t_intended_s, record.t_done_s
            if end_s is None:
                end_s = due_s + record.deadline_s
            self._timeline.add(due_s, max(due_s, end_s), record.met_deadline)
        self._arms.update(record.outcome.arm_id or "refused" for record in counted)
        self._tiers.update(record.tier or "refused" for record in counted)


def _quantiles(histogram: LogHistogram) -> list[float]:
    """Values to draw a curve through. Their ranks are not rounded as `nearest_rank` does: bundles hold them so."""
    count = histogram.count
    return [histogram.value_s(max(1, math.ceil(q / 100 * count))) for q in QUANTILES] if count else []
