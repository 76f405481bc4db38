"""Result of a bench: one JSON object, or the same as a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from skyshore.report.host import Setting, host_facts


def half_quartile_range(samples: Sequence[float]) -> float:
    """(Q3 − Q1) / 2, which one outlying repeat cannot move; 0 for fewer than two samples."""
    if len(samples) < 2:
        return 0.0
    lower, _, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return (upper - lower) / 2


@dataclass(frozen=True, slots=True)
class Aim:
    """The figure a metric should reach, and from which side."""

    limit: float
    side: Literal["at_most", "at_least"] = "at_most"

    def met_by(self, value: float) -> bool:
        """Whether `value` reaches it."""
        return value <= self.limit if self.side == "at_most" else value >= self.limit

    def __str__(self) -> str:
        return f"{'<=' if self.side == 'at_most' else '>='} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure: the median over the repeats and how far the repeats lay apart."""

    metric: str
    value: float
    unit: str
    spread: float = 0.0
    """Half the distance between the quartiles of the repeats, in `unit`."""
    against: str = ""
    """The peer or bound, with its pinned version; empty if there is none or it is missing."""
    against_value: float | None = None
    aim: Aim | None = None
    note: str = ""

    @classmethod
    def of_repeats(
        cls,
        metric: str,
        samples: Sequence[float],
        unit: str,
        *,
        against: str = "",
        against_samples: Sequence[float] = (),
        aim: Aim | None = None,
        note: str = "",
    ) -> Metric:
        """Median and spread of `samples`, beside the median of a peer's."""
        return cls(
            metric,
            statistics.median(samples),
            unit,
            half_quartile_range(samples),
            against,
            statistics.median(against_samples) if against_samples else None,
            aim,
            note,
        )

    @property
    def ratio(self) -> float | None:
        """Ours over theirs; None without a peer."""
        return self.value / self.against_value if self.against_value else None

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None without one."""
        return self.aim.met_by(self.value) if self.aim else None

    def to_json(self) -> dict[str, Any]:
        """The object DESIGN section 8 describes."""
        return {
            "metric": self.metric,
            "value": self.value,
            "spread": self.spread,
            "unit": self.unit,
            "against": self.against or None,
            "against_value": self.against_value,
            "ratio": self.ratio,
            "aim": str(self.aim) if self.aim else None,
            "met": self.met,
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True)
class BenchResult:
    """One run of one bench on one host."""

    bench: str
    settings: dict[str, Setting]
    repeats: int
    results: tuple[Metric, ...]
    missing: tuple[str, ...] = ()
    """Peers that could not be run, each with its reason."""
    version: str = field(default_factory=lambda: metadata.version("skyshore"))
    host: dict[str, Setting] = field(default_factory=host_facts)

    @property
    def met(self) -> bool:
        """Whether every metric with an aim reached it."""
        return all(metric.met is not False for metric in self.results)

    def to_json(self) -> str:
        """Indented JSON, keys in reading order."""
        body = {
            "bench": self.bench,
            "version": self.version,
            "host": self.host,
            "settings": self.settings,
            "repeats": self.repeats,
            "missing": list(self.missing),
            "results": [metric.to_json() for metric in self.results],
        }
        return json.dumps(body, indent=2, ensure_ascii=False)

    def to_table(self) -> Table:
        """The same as a table."""
        table = Table(title=f"{self.bench} · {self.repeats} repeats · {self.host['cpu']}", box=box.SIMPLE_HEAD)
        for heading in ("metric", "value", "± spread", "unit", "against", "its value", "ratio", "aim", "met"):
            # Names are folded, never cut: a figure is useless without its name.
            words = heading in ("metric", "unit", "against")
            table.add_column(heading, justify="left" if words else "right", overflow="fold")
        for m in self.results:
            theirs = "" if m.against_value is None else f"{m.against_value:.4g}"
            ratio = "" if m.ratio is None else f"{m.ratio:.2f}"
            met = {True: "[green]yes", False: "[red]no", None: ""}[m.met]
            row = (m.metric.replace("_", " "), f"{m.value:.4g}", f"{m.spread:.2g}", m.unit, m.against, theirs, ratio)
            table.add_row(*row, str(m.aim) if m.aim else "", met)
        return table

    def show(self, *, as_json: bool) -> None:
        """Print to stdout, as JSON or as a table with the missing peers below it."""
        if as_json:
            print(self.to_json())
            return
        console = Console()
        console.print(self.to_table())
        for reason in self.missing:
            console.print(f"missing: {reason}", markup=False)
