"""A folder that holds a whole experiment: inputs, cells, summary, report, and the code version and host.

inputs/           the scenario and every file it names
experiment.json   the grid, the code version, the host
cells/NAME/       result.json, curves.json, outcomes.parquet, decisions.parquet
summary.json      every figure with its interval and its difference to the baseline
report.html
SHA256SUMS        of all of these; `sha256sum --check SHA256SUMS` reads it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from experiments.plan.cell import Cell, CellResult
from experiments.plan.code_version import code_version
from experiments.plan.experiment import Experiment
from experiments.plan.inputs import Inputs
from experiments.plan.job import CURVES, RESULT, CellJob
from skyshore.domain.errors import SkyshoreError
from skyshore.report.host import host_facts

FORMAT = "skyshore.experiment/1"
INPUTS, CELLS, SCRATCH = "inputs", "cells", ".part"
EXPERIMENT, SUMMARY, REPORT, SUMS = "experiment.json", "summary.json", "report.html", "SHA256SUMS"


FORMER_NAMES = {"foresight": "oracle_schedule", "regret_foresight": "regret_oracle"}
"""Names in bundles of version 0.1.0, and their present names."""


class BadBundle(SkyshoreError):
    """The folder does not hold the expected experiment, or it is damaged."""

    code = "bad_bundle"


class Bundle:
    """Reads and writes the folder. Cells appear whole or not at all."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self.folder, self.experiment = folder, experiment
        self.scenario = folder / INPUTS / experiment.inputs.scenario

    @classmethod
    def begin(cls, folder: Path, experiment: Experiment) -> Bundle:
        """Open a folder for writing; finished cells of the same inputs stay in it.

        Raises:
            BadBundle: it holds something else.
        """
        if folder.exists() and any(folder.iterdir()):
            held = cls.read(folder).experiment
            if held.inputs.sha256 != experiment.inputs.sha256:
                raise BadBundle(f"{folder} holds an experiment with other inputs; choose another folder with --out")
        bundle = cls(folder, experiment)
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)
        experiment.inputs.write(folder / INPUTS)
        (folder / CELLS).mkdir(exist_ok=True)
        bundle._write_json(EXPERIMENT, bundle._description())
        return bundle

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Open a folder for reading.

        Raises:
            BadBundle: it holds no experiment that this version reads.
        """
        try:
            content = json.loads((folder / EXPERIMENT).read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise BadBundle(f"{folder}: format {content['format']!r} is not {FORMAT!r}, the one this version reads")
            inputs = Inputs.load(folder / INPUTS, content["scenario"])
            return cls(folder, Experiment.from_json(inputs, content))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadBundle(f"{folder} is not a run bundle ({error}); `skyshore compare` makes one") from error

    @property
    def scratch(self) -> Path:
        """Where unfinished cells are."""
        return self.folder / SCRATCH

    def jobs(self) -> list[CellJob]:
        """Every cell of the grid."""
        return self.experiment.jobs(self.scenario)

    def cell_folder(self, cell: Cell) -> Path:
        """Where a finished cell's files are."""
        former = {new: old for old, new in FORMER_NAMES.items()}.get(cell.policy)
        before = self.folder / CELLS / replace(cell, policy=former or cell.policy).name
        return before if former and before.is_dir() else self.folder / CELLS / cell.name

    def is_done(self, job: CellJob) -> bool:
        """Whether the cell is there, complete, and made from the same inputs by the same code."""
        content = self._cell_json(job.cell, RESULT)
        return content is not None and content["complete"] and content.items() >= job.marks.items()

    def accept(self, cell: Cell, folder: Path) -> None:
        """Take over a finished cell's folder, in one step."""
        place = self.cell_folder(cell)
        if place.exists():
            shutil.rmtree(place)
        os.replace(folder, place)

    def result(self, cell: Cell) -> CellResult | None:
        """A cell's result; None if it has none. Raises BadBundle for one that cannot be read."""
        content = self._cell_json(cell, RESULT)
        if content is None:
            return None
        try:
            return CellResult.from_json(cell, content)
        except (KeyError, TypeError, ValueError) as error:
            raise BadBundle(f"{self.cell_folder(cell) / RESULT} is damaged: {error!r}") from error

    def curves(self, cell: Cell) -> dict[str, Any]:
        """What the report draws of a cell. Raises BadBundle if it is not there."""
        content = self._cell_json(cell, CURVES)
        if content is None:
            raise BadBundle(f"{self.cell_folder(cell)} has no {CURVES}; run the cell again")
        return content

    def results(self) -> list[CellResult]:
        """Of every cell that has one."""
        return [result for job in self.jobs() if (result := self.result(job.cell)) is not None]

    def description(self) -> dict[str, Any]:
        """What `experiment.json` says. Raises BadBundle if it cannot be read."""
        try:
            content: dict[str, Any] = json.loads((self.folder / EXPERIMENT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadBundle(f"{self.folder / EXPERIMENT}: {error}") from error
        return content

    def seal(self, summary: dict[str, Any], report: str) -> None:
        """Write the summary, the report and the digests of everything."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._write_json(SUMMARY, summary)
        (self.folder / REPORT).write_text(report, encoding="utf-8")
        lines = [f"{digest_of(path)}  {path.relative_to(self.folder).as_posix()}\n" for path in self._files()]
        (self.folder / SUMS).write_text("".join(lines), encoding="utf-8")

    def sums(self) -> dict[str, str]:
        """Digest by path, as sealed. Raises BadBundle for a bundle that was never sealed."""
        try:
            lines = (self.folder / SUMS).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise BadBundle(f"{self.folder} was never sealed: {error}; finish it with `skyshore compare`") from error
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}

    def _files(self) -> list[Path]:
        cells = [self.cell_folder(job.cell) for job in self.jobs()]
        folders = [self.folder / INPUTS, *cells]
        found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return sorted([*found, *(self.folder / name for name in (EXPERIMENT, SUMMARY, REPORT))])

    def _description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            **self.experiment.to_json(),
            "code": code_version(),
            "host": {**host_facts(), "numpy": np.__version__, "pyarrow": pa.__version__},
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _cell_json(self, cell: Cell, name: str) -> dict[str, Any] | None:
        try:
            content = json.loads((self.cell_folder(cell) / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise BadBundle(f"{self.cell_folder(cell) / name} is damaged: {error}") from error
        present: dict[str, Any] = with_present_names(content)
        return present

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        (self.folder / name).write_text(text, encoding="utf-8")


def with_present_names(content: Any) -> Any:
    """The content of a JSON file, with the former names of policies and figures replaced, at any depth."""
    if isinstance(content, dict):
        return {FORMER_NAMES.get(key, key): with_present_names(value) for key, value in content.items()}
    if isinstance(content, list):
        return [with_present_names(value) for value in content]
    return FORMER_NAMES.get(content, content) if isinstance(content, str) else content


def digest_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing(bundle: Bundle, done: Sequence[CellResult]) -> list[str]:
    """Names of the cells without a complete result."""
    complete = {result.cell for result in done if result.complete}
    return [job.cell.name for job in bundle.jobs() if job.cell not in complete]
