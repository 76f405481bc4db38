"""The outermost layer of a process: reads the settings, sets up logs, and prints errors as one sentence."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import structlog
import uvloop
from pydantic import ValidationError

from skyshore.domain.errors import SkyshoreError
from skyshore.runtime import logs

log = structlog.get_logger()

GC_THRESHOLDS = 10_000, 20, 50
"""A request makes many objects but few reference cycles: Python's default of 700 would collect too often."""


class ProcessSettings(Protocol):
    """The settings that every process has."""

    @property
    def log_level(self) -> str:
        """debug, info, warning or error."""
        ...

    @property
    def log_json(self) -> bool:
        """True: one JSON object per line. False: coloured text."""
        ...


SettingsT = TypeVar("SettingsT", bound=ProcessSettings)


def run_process(
    name: Callable[[SettingsT], str],
    read_settings: Callable[[], SettingsT],
    serve: Callable[[SettingsT], Coroutine[Any, Any, None]],
) -> int:
    """Serve on uvloop until `serve` returns. Returns the exit status: 1 if a setting, file or address is wrong.

    Their tracebacks are logged at debug level. Any other error is a bug and leaves with its traceback.
    """
    try:
        settings = read_settings()
    except ValidationError as error:
        return _status([error])
    logs.configure(name(settings), settings.log_level, as_json=settings.log_json)
    failures: list[BaseException] = []
    gc.freeze()  # imported modules stay until the end: collections need not visit them
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        uvloop.run(serve(settings))
    except* (SkyshoreError, OSError, ValueError) as group:
        log.debug("cannot serve", exc_info=group)
        failures = _leaves(group)
    return _status(failures)


def _status(failures: list[BaseException]) -> int:
    if failures:
        logs.SafeStream(sys.stderr).write(f"error: {'; '.join(map(_sentence, failures))}\n")
    return int(bool(failures))


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _sentence(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return str(error)
