"""Work that goes on for ever, through failures of what it depends on: the store, other processes, the disk.

A failure of a dependency is logged once, when an outage begins, and once when it is over. Between two tries the wait
grows and has a random part, so that many processes do not ask a store that is back all at once. Any other error is a
bug: it leaves, so that the process ends and says why.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import structlog

from skyshore.domain.errors import DeadlineExceeded, NodeUnavailable, QueueFull, SkyshoreError, StoreUnavailable
from skyshore.runtime import telemetry
from skyshore.runtime.backoff import doubled_wait_s

log = structlog.get_logger()

DEPENDENCY_FAILED = (NodeUnavailable, QueueFull, DeadlineExceeded, OSError)
"""Failures that pass without a change of our code. OSError includes TimeoutError."""
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 2.0

ResultT = TypeVar("ResultT")


async def until_done(
    what: str, step: Callable[[], Awaitable[ResultT]], failed: Callable[[BaseException], None] = lambda error: None
) -> ResultT:
    """Try `step` until it succeeds.

    Args:
        what: name for the log, as in "nodes of the registry".
        step: one try; it may be called often.
        failed: called after each failure of a dependency.

    Returns:
        What `step` returned.
    """
    began_s, failures = time.monotonic(), 0
    while True:
        try:
            result = await step()
        except DEPENDENCY_FAILED as error:
            if not failures:
                telemetry.OUTAGES.labels(what).inc()
                log.warning("a dependency failed; trying again until it is back", loop=what, **why(error))
            failed(error)
            await asyncio.sleep(wait_s(failures, random.random()))
            failures += 1
            continue
        if failures:
            log.info("the dependency is back", loop=what, away_s=round(time.monotonic() - began_s, 1))
        return result


def wait_s(failures: int, chance: float) -> float:
    """Seconds to wait after `failures` earlier failures in a row; `chance` is a random number in 0..1."""
    return doubled_wait_s(FIRST_WAIT_S, LONGEST_WAIT_S, failures) * (1 - chance / 2)


async def for_ever(
    what: str,
    step: Callable[[], Awaitable[object]],
    every_s: float = 0.0,
    failed: Callable[[BaseException], None] = lambda error: None,
) -> NoReturn:
    """Call `step` again and again until cancelled, `every_s` seconds after it ended; see `until_done`."""
    while True:
        await until_done(what, step, failed)
        await asyncio.sleep(every_s)


def why(error: BaseException) -> dict[str, str]:
    """The fields of a log line that say why something failed."""
    message = error.message if isinstance(error, SkyshoreError) else str(error)
    fields = {"why": message or type(error).__name__}
    if isinstance(error, StoreUnavailable) and error.detail:
        fields["detail"] = error.detail
    return fields
