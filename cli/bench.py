"""`skyshore bench`: runs one file of `benchmarks/`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import benchmarks
from benchmarks.result import BenchResult
from skyshore.domain.errors import NotFound


def names() -> list[str]:
    """Benches there are: the modules of `benchmarks` that define `run`, told from their text, as importing is dear."""
    files = (path for folder in benchmarks.__path__ for path in Path(folder).glob("*.py"))
    return sorted(path.stem for path in files if "\ndef run(" in path.read_text(encoding="utf-8"))


def run_bench(name: str, *, as_json: bool) -> None:
    """Run it and print what it found.

    Raises:
        NotFound: there is no such bench.
    """
    if name not in names():
        raise NotFound(f"no bench '{name}'; there are {', '.join(names()) or 'none'}", param="name")
    result: BenchResult = import_module(f"benchmarks.{name}").run()
    result.show(as_json=as_json)
