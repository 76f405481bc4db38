"""Marks functions as kernels: they run as plain Python, or as machine code if numba is installed (`compiled`).

A kernel uses numbers, records (`skyshore.rules.records`), arrays and other kernels, nothing else. Both forms give the
same results to the bit: numba keeps Python's order of operations (no `fastmath`) and calls the same C library.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache, wraps
from importlib import metadata, util
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

_kernels: set[FunctionType] = set()
_allocating: set[FunctionType] = set()
_generic: dict[FunctionType, dict[type, FunctionType]] = {}
_defaults: dict[FunctionType, FunctionType] = {}


def kernel(function: Function) -> Function:
    """Register a function as a kernel; it stays a plain function."""
    _kernels.add(cast(FunctionType, function))
    return function


def allocating_kernel(function: Function) -> Function:
    """`kernel`, for a function that makes arrays or calls library functions that do; others must not."""
    _allocating.add(cast(FunctionType, function))
    return kernel(function)


def generic(function: Function) -> Function:
    """A kernel chosen by the type of its first argument, a named tuple; `function` itself where none was added.

    `implement` adds one. Machine code is bound to one of them when it is made, so the choice costs nothing there.
    """
    default = cast(FunctionType, kernel(function))
    implementations: dict[type, FunctionType] = {}

    @wraps(function)
    def call(state: Any, *arguments: Any) -> Any:
        return implementations.get(type(state), default)(state, *arguments)

    _generic[cast(FunctionType, call)] = implementations
    _defaults[cast(FunctionType, call)] = default
    return cast(Function, call)


def implement(function: Callable[..., Any], state: type) -> Callable[[Function], Function]:
    """Decorator: the kernel that `function` means for a first argument of type `state`."""

    def register(implementation: Function) -> Function:
        _generic[cast(FunctionType, function)][state] = cast(FunctionType, kernel(implementation))
        return implementation

    return register


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


def entry(function: Function) -> Function:
    """`compiled` for a caller whose arguments always have the same types: only the first call checks them.

    The result of a call with other types is undefined, because machine code does not check them.
    """
    dispatcher = cast(Any, compiled(function))
    found: Any = None

    def call(*arguments: Any) -> Any:
        nonlocal found
        if found is not None:
            return found(*arguments)
        result = dispatcher(*arguments)
        found = dispatcher.overloads[tuple(map(dispatcher.typeof_pyval, arguments))].entry_point
        return result

    return cast(Function, call)


def keep(what: str) -> None:
    """Note on disk that the machine code for `what` was made and stored."""
    folder = _cache_folder()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{what}.kept").touch()


def is_kept(what: str) -> bool:
    """Whether `keep` was called for `what` in this version of the kernels. Then loading takes about a second."""
    folder = _cache_folder()
    return folder is not None and (folder / f"{what}.kept").exists()


@cache
def _dispatcher(function: FunctionType) -> Any:
    # Without `_nrt` numba counts no references. Callers hold all arrays, and counting took two thirds of a run's time.
    return _numba().njit(cache=True, _nrt=function in _allocating)(function)


@cache
def _numba() -> Any:
    """Import numba, and let compiled kernels call other kernels by their plain names."""
    import numba  # noqa: PLC0415 (an extra, and half a second)
    from numba.core import types  # noqa: PLC0415
    from numba.extending import overload, typeof_impl  # noqa: PLC0415

    folder = _cache_folder()
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]

    @typeof_impl.register(FunctionType)
    def _type_of_kernel(function: FunctionType, _: object) -> Any:
        return types.Dispatcher(_dispatcher(function)) if function in _kernels else None

    find_tuple_type, tuple_types = typeof_impl.dispatch(tuple), {}

    # numba would look at every field of every record at each call: half a millisecond for the state of a policy.
    @typeof_impl.register(tuple)
    def _type_of_tuple(value: tuple[Any, ...], context: object) -> Any:
        form = _form(value)
        if form not in tuple_types:
            tuple_types[form] = find_tuple_type(value, context)
        return tuple_types[form]

    for function, implementations in _generic.items():
        overload(function)(_choice(implementations, _defaults[function]))
    return numba


def _form(value: Any) -> Any:
    """What makes the machine types of two tuples different: classes, and form and type of arrays."""
    if isinstance(value, tuple):
        return (type(value), *map(_form, value))
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, value.flags.carray
    return value if isinstance(value, FunctionType) else type(value)


def _choice(implementations: dict[type, FunctionType], default: FunctionType) -> Callable[..., Any]:
    def choose(state: Any, *arguments: Any) -> Callable[..., Any]:
        chosen = _dispatcher(implementations.get(state.instance_class, default))

        def call(state: Any, *arguments: Any) -> Any:
            return chosen(state, *arguments)

        return call

    return choose


@cache
def _cache_folder() -> Path | None:
    """One folder per version and place of the kernels' sources.

    Version: numba looks only at the file of the function that is called. Place: numba keeps code by the path of the
    source, so another checkout of the same version has to compile again, and must not find the notes of `keep`.

    None where `NUMBA_CACHE_DIR` gives numba its folder.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return None
    digest = hashlib.sha256(metadata.version("numba").encode())
    for path in sorted({__file__, *(function.__code__.co_filename for function in _kernels)}):
        digest.update(path.encode() + Path(path).read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "skyshore" / f"kernels-{digest.hexdigest()[:16]}"
