"""Figures of a run in memory that does not grow with it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.node import Tier
from skyshore.domain.outcome import Outcome, OutcomeStatus

SMALLEST_S = 1e-5
LARGEST_S = 1e5
STEP = 1.005
"""Width of one bin: any percentile is right within half a percent."""
LOG_STEP = math.log(STEP)
BINS = math.ceil(math.log(LARGEST_S / SMALLEST_S) / LOG_STEP) + 2


class LogHistogram:
    """Counts durations in bins of equal ratio."""

    def __init__(self) -> None:
        self._counts = [0] * BINS
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count one duration; what lies outside 10 µs to 10⁵ s is counted at the border."""
        place = math.ceil(math.log(seconds / SMALLEST_S) / LOG_STEP) if seconds > SMALLEST_S else 0
        self._counts[place if place < BINS else BINS - 1] += 1
        self.count += 1

    def add_all(self, seconds: NDArray[np.float64]) -> None:
        """Count many."""
        places = np.ceil(np.log(np.maximum(seconds, SMALLEST_S) / SMALLEST_S) / LOG_STEP).astype(np.int64)
        for place, count in enumerate(np.bincount(np.minimum(places, BINS - 1)).tolist()):
            self._counts[place] += count
        self.count += len(seconds)

    def merge(self, other: LogHistogram) -> None:
        """Count what another one counted too."""
        self._counts = [ours + theirs for ours, theirs in zip(self._counts, other._counts, strict=True)]
        self.count += other.count

    def percentile_s(self, q: float) -> float:
        """Nearest-rank percentile; not a number without samples."""
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(q / 100 * self.count))
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(SMALLEST_S * STEP ** (place - 0.5))


@dataclass(slots=True)
class Sums:
    """What is added up, for all tasks or for one service class."""

    requests: int = 0
    met: int = 0
    statuses: Counter[OutcomeStatus] = field(default_factory=Counter)
    latency: LogHistogram = field(default_factory=LogHistogram)
    ttft: LogHistogram = field(default_factory=LogHistogram)
    tpot: LogHistogram = field(default_factory=LogHistogram)
    up_bytes: int = 0
    down_bytes: int = 0
    output_tokens: int = 0
    frames: int = 0
    quality: float = 0.0
    transmission_joules: float = 0.0
    inference_joules: float = 0.0
    idle_joules: float = 0.0
    by_tier: Counter[Tier] = field(default_factory=Counter)

    def merge(self, other: Sums) -> None:
        """Add another's sums to these."""
        for name in (entry.name for entry in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, LogHistogram):
                mine.merge(theirs)
            elif isinstance(mine, Counter):
                mine.update(theirs)
            else:
                setattr(self, name, mine + theirs)


class Tally:
    """Takes outcomes one at a time and forgets them."""

    def __init__(self, tiers: Mapping[str, Tier]) -> None:
        """`tiers` by node id."""
        self.by_class: defaultdict[str, Sums] = defaultdict(Sums)
        self._tiers = tiers

    def add(self, outcome: Outcome) -> None:
        """Count one task. Latencies are those of answers that came; the others are in `statuses`."""
        self._add(self.by_class[outcome.service_class], outcome)

    @property
    def all(self) -> Sums:
        """All classes together."""
        total = Sums()
        for sums in self.by_class.values():
            total.merge(sums)
        return total

    def to_json(self, duration_s: float) -> dict[str, object]:
        """All figures as plain numbers; rates are over `duration_s`."""
        classes = {name: _figures(sums, duration_s) for name, sums in sorted(self.by_class.items())}
        return {**_figures(self.all, duration_s), "classes": classes}

    def _add(self, sums: Sums, outcome: Outcome) -> None:
        worker = outcome.worker
        sums.requests += 1
        sums.statuses[outcome.status] += 1
        sums.up_bytes += outcome.up_bytes
        sums.down_bytes += outcome.down_bytes
        sums.transmission_joules += outcome.transmission_joules
        if outcome.status is not OutcomeStatus.OK:
            return
        sums.met += outcome.latency_s <= outcome.deadline_s
        sums.latency.add(outcome.latency_s)
        if outcome.ttft_s:
            sums.ttft.add(outcome.ttft_s)
            if worker.output_tokens > 1:
                sums.tpot.add((outcome.latency_s - outcome.ttft_s) / (worker.output_tokens - 1))
        sums.output_tokens += worker.output_tokens
        sums.frames += worker.frames
        sums.quality += outcome.quality
        sums.inference_joules += worker.inference_joules
        sums.idle_joules += worker.idle_joules
        sums.by_tier[self._tiers[outcome.node_id]] += 1


def _figures(sums: Sums, duration_s: float) -> dict[str, object]:
    answered = max(1, sums.statuses[OutcomeStatus.OK])
    return {
        "requests": sums.requests,
        "statuses": {str(status): count for status, count in sorted(sums.statuses.items())},
        "attainment": sums.met / max(1, sums.requests),
        "goodput_per_s": sums.met / duration_s,
        "latency_s": _percentiles(sums.latency),
        "ttft_s": _percentiles(sums.ttft),
        "tpot_s": _percentiles(sums.tpot),
        "output_tokens_per_s": sums.output_tokens / duration_s,
        "frames_per_s": sums.frames / duration_s,
        "mean_quality": sums.quality / answered,
        "up_bytes": sums.up_bytes,
        "down_bytes": sums.down_bytes,
        "edge_share": sums.by_tier[Tier.EDGE] / answered,
        "joules": {
            "transmission": sums.transmission_joules,
            "inference": sums.inference_joules,
            "idle": sums.idle_joules,
            "source": "modelled:nodemodel",
        },
    }


def _percentiles(histogram: LogHistogram) -> dict[str, float | None]:
    if not histogram.count:
        return {"p50": None, "p95": None, "p99": None}
    return {f"p{q}": histogram.percentile_s(q) for q in (50, 95, 99)}
