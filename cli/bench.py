"""`skyshore bench`: runs one file of `benchmarks/`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import benchmarks
from benchmarks.result import BenchResult
from skyshore.domain.errors import NotFound


def names() -> list[str]:
    """Benches there are: the modules of `benchmarks` that define `run`."""
    return sorted(info.name for info in pkgutil.iter_modules(benchmarks.__path__) if info.name != "result")


def run_bench(name: str, *, as_json: bool) -> None:
    """Run it and print what it found.

    Raises:
        NotFound: there is no such bench.
    """
    if name not in names():
        raise NotFound(f"no bench '{name}'; there are {', '.join(names()) or 'none'}", param="name")
    module = import_module(f"benchmarks.{name}")
    if not hasattr(module, "run"):
        raise NotFound(f"benchmarks/{name}.py is part of another bench: it has no run()", param="name")
    result: BenchResult = module.run()
    result.show(as_json=as_json)
