"""Marks a function as a kernel: it runs as plain Python, and `compiled` gives its machine code where numba is installed.

A kernel uses numbers, records (`skyshore.rules.records`), arrays and other kernels, nothing else. Both forms give the
same results to the bit: numba keeps Python's order of operations (no `fastmath`) and calls the same C library.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from importlib import util
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

_kernels: set[FunctionType] = set()


def kernel(function: Function) -> Function:
    """Register a function as a kernel; it stays a plain function."""
    _kernels.add(cast(FunctionType, function))
    return function


def can_compile() -> bool:
    """Whether numba is installed."""
    return util.find_spec("numba") is not None


def compiled(function: Function) -> Function:
    """The machine code of a kernel, made at its first call and kept on disk.

    Raises:
        ImportError: numba is not installed.
        TypeError: the function is no kernel.
    """
    if function not in _kernels:
        raise TypeError(f"{function!r} is no kernel")
    return cast(Function, _dispatcher(cast(FunctionType, function)))


@cache
def _dispatcher(function: FunctionType) -> Any:
    numba = _numba()
    return numba.njit(cache=True)(function)


@cache
def _numba() -> Any:
    """Import numba, and let compiled kernels call other kernels by their plain names."""
    import numba  # noqa: PLC0415 (an extra, and half a second)
    from numba.core import types  # noqa: PLC0415
    from numba.extending import typeof_impl  # noqa: PLC0415

    if "NUMBA_CACHE_DIR" not in os.environ:
        numba.config.CACHE_DIR = str(_cache_folder(numba.__version__))

    @typeof_impl.register(FunctionType)
    def _type_of_kernel(function: FunctionType, _: object) -> Any:
        return types.Dispatcher(_dispatcher(function)) if function in _kernels else None

    return numba


def _cache_folder(version: str) -> Path:
    """One folder per version of the kernels' sources: numba looks only at the file of the function that is called."""
    digest = hashlib.sha256(version.encode())
    for path in sorted({function.__code__.co_filename for function in _kernels}):
        digest.update(Path(path).read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "skyshore" / f"kernels-{digest.hexdigest()[:16]}"
