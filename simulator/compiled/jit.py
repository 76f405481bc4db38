"""Turns plain functions on numbers and arrays into machine code, kept between processes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba
import numpy as np

import simulator
from skyshore import links, nodemodel, policies, profiling, scheduling

Function = TypeVar("Function", bound=Callable[..., object])


def _cache_folder() -> Path:
    """One folder per version of the sources: numba itself looks only at the file of the function that is called."""
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__}".encode())
    for package in (simulator, links, nodemodel, policies, profiling, scheduling):
        (root,) = package.__path__
        for path in sorted(Path(root).rglob("*.py")):
            digest.update(path.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "skyshore" / f"kernel-{digest.hexdigest()[:16]}"


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(_cache_folder())  # type: ignore[attr-defined]


def compiled(function: Function) -> Function:
    """The same function as machine code, with Python's arithmetic: nothing is reordered, contracted or approximated."""
    return cast(Function, numba.njit(cache=True)(function))
