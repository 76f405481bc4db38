"""Work that goes on through failures: bounded waits, two log lines for an outage, and no mercy for bugs."""

import asyncio

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from skyshore.domain.errors import (
    DeadlineExceeded,
    DiskFull,
    Internal,
    InvalidTask,
    NodeUnavailable,
    StoreBusy,
    StoreUnavailable,
)
from skyshore.runtime.endure import FIRST_WAIT_S, LONGEST_WAIT_S, for_ever, until_done, wait_s
from tests.fakes.virtual_time import run_in_virtual_time

TRANSIENT = (
    StoreUnavailable,
    StoreBusy,
    NodeUnavailable,
    DiskFull,
    DeadlineExceeded,
    TimeoutError,
    ConnectionError,
    OSError,
)
BUGS = (KeyError, TypeError, ValueError, AssertionError, RuntimeError, Internal, InvalidTask)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_waits_grow_to_a_bound_and_differ(failures: int, chance: float) -> None:
    assert FIRST_WAIT_S / 2 <= wait_s(failures, chance) <= LONGEST_WAIT_S
    assert wait_s(failures, 0.0) <= wait_s(failures + 1, 0.0)
    assert wait_s(failures, 1.0) == wait_s(failures, 0.0) / 2


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_failure_of_a_dependency_is_tried_again_and_said_once(kind: type[Exception]) -> None:
    tries, noted = 0, []

    async def step() -> str:
        nonlocal tries
        tries += 1
        if tries <= 100:
            raise kind("away")
        return "done"

    with structlog.testing.capture_logs() as lines:
        assert run_in_virtual_time(until_done("work", step, noted.append)) == "done"
    assert [line["event"].split()[-1] for line in lines] == ["back", "back"]
    assert (tries, len(noted)) == (101, 100)


@pytest.mark.parametrize("kind", BUGS)
def test_a_bug_ends_the_loop(kind: type[Exception]) -> None:
    tries = 0

    async def step() -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            raise kind("ours")

    with pytest.raises(kind):
        run_in_virtual_time(for_ever("work", step))
    assert tries == 3


def test_a_cancellation_ends_it_at_once() -> None:
    async def step() -> None:
        raise StoreUnavailable("away")

    async def stop_while_it_waits() -> bool:
        work = asyncio.create_task(for_ever("work", step))
        await asyncio.sleep(60.0)
        work.cancel()
        await asyncio.wait([work])
        return work.cancelled()

    assert run_in_virtual_time(stop_while_it_waits())
