"""Checks a bundle: first its files against their digests, then every simulated cell against a new run of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import parquet

from experiments.figures.comparison import compare
from experiments.plan.bundle import SUMS, BadBundle, Bundle, digest_of, missing, with_present_names
from experiments.plan.cell import CellResult, Driver
from experiments.plan.code_version import sources_sha256
from experiments.plan.job import CURVES, DECISIONS, OUTCOMES, CellJob
from experiments.run.processes import Event, Failed, Finished
from experiments.run.sweep import Execute, summary_of, sweep


@dataclass(frozen=True, slots=True)
class BundleFinding:
    """A difference to what the bundle says; or, if `harmless`, a note for the reader."""

    where: str
    what: str
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of a verification."""

    findings: tuple[BundleFinding, ...]
    rerun: int
    """Cells that were run again."""
    cells: int

    @property
    def holds(self) -> bool:
        """Whether everything that was checked is equal."""
        return all(finding.harmless for finding in self.findings)


def verify(bundle: Bundle, execute: Execute, scratch: Path, on_event: Callable[[Event], None]) -> Verification:
    """Check the digests, then run every complete simulated cell again in `scratch` and compare bit by bit.

    Raises:
        BadBundle: it was never sealed.
    """
    findings = [*_files(bundle), *_code(bundle)]
    again, skipped = _repeatable(bundle)
    findings += skipped
    for event in sweep(again, execute, scratch):
        on_event(event)
        if isinstance(event, Failed):
            findings.append(BundleFinding(event.job.cell.name, f"cannot be run again: {event.reason}"))
        elif isinstance(event, Finished):
            findings += _differences(bundle, event)
    findings += _summary(bundle)
    return Verification(tuple(findings), len(again), len(bundle.jobs()))


def _files(bundle: Bundle) -> Iterator[BundleFinding]:
    sums = bundle.sums()
    for name, digest in sums.items():
        path = bundle.folder / name
        if not path.is_file():
            yield BundleFinding(name, "is missing")
        elif digest_of(path) != digest:
            yield BundleFinding(name, "was changed after the bundle was sealed")
    there = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()}
    for name in sorted(there - sums.keys() - {SUMS}):
        # An extra file among the inputs may have an effect; elsewhere it is harmless.
        yield BundleFinding(name, "is not part of the bundle", harmless=not name.startswith("inputs/"))
    if bundle.description()["inputs_sha256"] != bundle.experiment.inputs.sha256:
        yield BundleFinding("inputs", "are not those that the experiment names")


def _code(bundle: Bundle) -> Iterator[BundleFinding]:
    made_by = bundle.description()["code"]
    if made_by["sources_sha256"] != sources_sha256():
        commit = f", commit {made_by['commit'][:12]}" if made_by.get("commit") else ""
        dirty = " with changes that were not committed" if made_by.get("dirty") else ""
        yield BundleFinding("code", f"the bundle was made by other sources{commit}{dirty}", harmless=True)


def _repeatable(bundle: Bundle) -> tuple[list[CellJob], list[BundleFinding]]:
    again, skipped = [], []
    for job in bundle.jobs():
        result = bundle.result(job.cell)
        if result is None:
            skipped.append(BundleFinding(job.cell.name, "has no result", harmless=True))
        elif not result.complete:
            skipped.append(BundleFinding(job.cell.name, "was interrupted; not run again", harmless=True))
        elif job.cell.driver is Driver.LIVE:
            skipped.append(
                BundleFinding(job.cell.name, "is a live run: never twice the same; not run again", harmless=True)
            )
        else:
            again.append(job)
    return again, skipped


def _differences(bundle: Bundle, event: Finished) -> Iterator[BundleFinding]:
    name = event.job.cell.name
    before = bundle.result(event.job.cell)
    after = CellResult.from_json(event.job.cell, read_json(event.folder / "result.json"))
    assert before is not None, "only cells with a result are run again"
    for part, old, new in _parts(before, after):
        if old != new:
            yield BundleFinding(name, f"{part} was {_short(old)}, is {_short(new)} when run again")
    if read_json(bundle.cell_folder(event.job.cell) / CURVES) != read_json(event.folder / CURVES):
        yield BundleFinding(name, f"{CURVES} differs when run again")
    for table in (OUTCOMES, DECISIONS):
        old_path, new_path = bundle.cell_folder(event.job.cell) / table, event.folder / table
        if new_path.exists() and not (old_path.exists() and _equal_tables(old_path, new_path)):
            yield BundleFinding(name, f"{table} differs when run again")


def _parts(before: CellResult, after: CellResult) -> Iterator[tuple[str, object, object]]:
    for part in ("schedule_sha256", "decisions_sha256", "statuses", "duration_s", "energy_sources", "provenance"):
        yield part, getattr(before, part), getattr(after, part)
    for name in {**before.figures, **after.figures}:
        yield name, before.figures.get(name), after.figures.get(name)
    yield "by_class", before.by_class, after.by_class


def _summary(bundle: Bundle) -> Iterator[BundleFinding]:
    """The summary must follow from the cells, even if its digest is right."""
    experiment, results = bundle.experiment, bundle.results()
    held = with_present_names(read_json(bundle.folder / "summary.json"))
    groups = compare(results, experiment.contestants, experiment.reference)
    made = summary_of(bundle, groups, missing(bundle, results), held.get("failures", {}))
    if held != made:
        parts = [name for name in {**held, **made} if held.get(name) != made.get(name)]
        yield BundleFinding("summary.json", f"does not follow from the cells: {', '.join(parts)}")


def _equal_tables(one: Path, other: Path) -> bool:
    """Whether the columns of the kept table are the same again; a newer version may write more of them."""
    kept, made = parquet.read_table(one), parquet.read_table(other)
    if not set(kept.column_names) <= set(made.column_names):
        return False
    return bool(kept.equals(made.select(kept.column_names).cast(kept.schema)))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file of a bundle. Raises BadBundle if there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadBundle(f"{path}: {error}") from error
    return content
