"""A cell as a job for an executor, and the names of the files that it writes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from experiments.plan.cell import Cell
from skyshore.domain.errors import InvalidTask

FORMAT = "skyshore.cell/1"
RESULT, CURVES = "result.json", "curves.json"
OUTCOMES, DECISIONS = "outcomes.parquet", "decisions.parquet"


class Engine(StrEnum):
    """Simulation engines that a user can choose."""

    AUTO = "auto"
    """Compiled where the scenario allows it and is large enough."""
    PLAIN = "plain"
    COMPILED = "compiled"

    @classmethod
    def named(cls, word: str) -> Engine:
        """Raises InvalidTask for an unknown name."""
        if word not in set(cls):
            raise InvalidTask(f"no engine '{word}'; there are {', '.join(cls)}", param="engine")
        return cls(word)


@dataclass(frozen=True, slots=True)
class CellJob:
    """A cell to run, what to keep of it, and the marks that identify its result."""

    cell: Cell
    inputs_sha256: str
    sources_sha256: str
    rows: bool = True
    """Save one row per request."""
    decisions: bool = False
    """Save one row per decision, with scores and features."""

    engine: Engine = Engine.AUTO
    """Of a simulated cell; the result is the same."""

    @property
    def marks(self) -> dict[str, object]:
        """Equal marks mean that a result may be used again."""
        return {
            "format": FORMAT,
            "inputs_sha256": self.inputs_sha256,
            "sources_sha256": self.sources_sha256,
            "rows": self.rows,
            "decisions": self.decisions,
        }
