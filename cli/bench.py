"""`skyshore bench`: runs one file of `benchmarks/`."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path

import benchmarks
from benchmarks.result import BenchResult
from skyshore.domain.errors import InvalidTask, NotFound


def names() -> list[str]:
    """Names of the benches: modules of `benchmarks` that define `run`; found by their text, as importing is slow."""
    files = (path for folder in benchmarks.__path__ for path in Path(folder).glob("*.py"))
    return sorted(path.stem for path in files if "\ndef run(" in path.read_text(encoding="utf-8"))


def run_bench(name: str, *, as_json: bool, quick: bool = False) -> None:
    """Run it and print what it found; `quick` asks for a smoke test.

    Raises:
        NotFound: there is no such bench.
        InvalidTask: it has no quick run.
    """
    if name not in names():
        raise NotFound(f"no bench '{name}'; choose one of {', '.join(names()) or 'none'}", param="name")
    run = import_module(f"benchmarks.{name}").run
    if quick and "quick" not in signature(run).parameters:
        raise InvalidTask(f"bench '{name}' has no quick run", param="quick")
    result: BenchResult = run(quick=True) if quick else run()
    result.show(as_json=as_json)
