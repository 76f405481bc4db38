"""A rank group: jobs side by side, and what happens when ranks die, stall or do not belong."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")

from cloud_node.dsp.group import GroupSettings, RankGroup
from cloud_node.dsp.launcher import ExternalLauncher, ForkLauncher, RankCommand, TorchrunLauncher
from cloud_node.dsp.messages import Message, read_message, write_message
from skyshore.domain.errors import DeadlineExceeded, InvalidTask, NodeUnavailable, QueueFull

PROGRAM = "tests.component.dsp_programs:build"
GRID = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


def group(folder: Path, size: int, stall_s: float = 20.0) -> RankGroup:
    command = RankCommand(PROGRAM, argument=str(folder), start_s=120.0)
    return RankGroup(GroupSettings(size=size, start_s=120.0, stall_s=stall_s), ForkLauncher(size, command))


async def test_a_group_serves_survives_a_death_and_a_stall_and_retries_once(tmp_path: Path) -> None:
    async with group(tmp_path, 2, stall_s=6.0) as ranks:
        both = await ranks.run({}, [GRID, GRID], 100.0)
        assert np.array_equal(both, GRID)

        jobs = [ranks.run({"rounds": 3}, [GRID + i] * size, 100.0) for i, size in enumerate((1, 2, 1, 1, 2))]
        for i, answer in enumerate(await asyncio.gather(*jobs)):
            assert np.array_equal(answer, GRID + i)

        with pytest.raises(InvalidTask, match="not this one"):
            await ranks.run({"fault": "refuse"}, [GRID, GRID], 100.0)
        assert ranks.rebuilds == 0

        answer = await ranks.run({"fault": "die", "once": "died"}, [GRID, GRID], 150.0)
        assert np.array_equal(answer, GRID)
        assert ranks.rebuilds == 1

        answer = await ranks.run({"fault": "stall", "once": "stalled"}, [GRID, GRID], 150.0)
        assert np.array_equal(answer, GRID)
        assert ranks.rebuilds == 2


async def test_a_job_that_always_kills_its_rank_fails_after_one_retry(tmp_path: Path) -> None:
    async with group(tmp_path, 1) as ranks:
        with pytest.raises(NodeUnavailable, match="died"):
            await ranks.run({"fault": "die"}, [GRID], 150.0)


async def test_a_job_that_waits_too_long_for_a_rank_fails_in_time_and_harms_no_other(tmp_path: Path) -> None:
    async with group(tmp_path, 1) as ranks, asyncio.TaskGroup() as callers:
        slow = callers.create_task(ranks.run({"fault": "sleep", "seconds": 1.5}, [GRID], 100.0))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded, match="no answer within"):
            await ranks.run({}, [GRID], 0.2)
        assert np.array_equal(await slow, GRID)
        assert ranks.rebuilds == 0


async def test_two_groups_on_one_host_do_not_meet(tmp_path: Path) -> None:
    async with group(tmp_path, 2) as one, group(tmp_path, 1) as other:
        answers = await asyncio.gather(one.run({}, [GRID, GRID], 100.0), other.run({}, [GRID + 1], 100.0))
    assert np.array_equal(answers[0], GRID)
    assert np.array_equal(answers[1], GRID + 1)


@pytest.mark.timeout(120)
async def test_the_same_ranks_run_under_torchrun(tmp_path: Path) -> None:
    command = RankCommand(PROGRAM, argument=str(tmp_path), start_s=90.0)
    async with RankGroup(GroupSettings(size=2, start_s=90.0), TorchrunLauncher(2, command)) as ranks:
        assert np.array_equal(await ranks.run({}, [GRID, GRID], 100.0), GRID)


class NoLauncher(ExternalLauncher):
    async def start(self, front: str, run: str, token: str) -> None:
        raise FileNotFoundError("no python here")


async def test_a_launcher_that_cannot_launch_is_named_at_once() -> None:
    with pytest.raises(NodeUnavailable, match="could not be started: no python here"):
        async with RankGroup(GroupSettings(size=2, start_s=20.0), NoLauncher()):
            pass


async def test_ranks_that_end_before_they_connect_are_noticed_at_once() -> None:
    command = RankCommand("tests.component.no_such_program:build", start_s=90.0)
    with pytest.raises(NodeUnavailable, match="did not start"):
        async with asyncio.timeout(80.0), RankGroup(GroupSettings(size=1, start_s=90.0), ForkLauncher(1, command)):
            pass


# ------------------------------------------------------------- admission, with ranks that are played by the test


@pytest.fixture
async def strangers() -> AsyncIterator[tuple[RankGroup, asyncio.Task[RankGroup]]]:
    """A group of two that waits for ranks from elsewhere."""
    settings = GroupSettings(size=2, token="word", start_s=20.0, stall_s=0.5, waiting=2)
    ranks = RankGroup(settings, ExternalLauncher())
    starting = asyncio.create_task(ranks.__aenter__())
    await ranks.listening.wait()
    yield ranks, starting
    await asyncio.gather(starting, return_exceptions=True)
    await ranks.__aexit__(None, None, None)


async def knock(ranks: RankGroup, **hello: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Message]:
    host, _, port = ranks.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    said = {"token": "word", "rank": 0, "world_size": 2, "run": "a/0", "pid": os.getpid(), **hello}
    await write_message(writer, Message(said))
    return reader, writer, await read_message(reader)


async def test_a_wrong_world_size_is_named_and_nobody_hangs(strangers: tuple) -> None:
    ranks, starting = strangers
    _, writer, answer = await knock(ranks, world_size=3)
    assert "world of 3" in answer.head["refused"]
    with pytest.raises(NodeUnavailable, match="world of 3, this group has 2"):
        await starting
    writer.close()


async def test_strangers_and_doubles_are_refused(strangers: tuple) -> None:
    ranks, starting = strangers
    _, first, welcome = await knock(ranks)
    assert welcome.head == {"welcome": True}
    for claim, word in (
        ({"token": "guess"}, "token"),
        ({"rank": 0}, "rank 0 is connected already"),
        ({"rank": 1, "run": "b/0"}, "run b/0"),
    ):
        _, writer, answer = await knock(ranks, **claim)
        assert word in answer.head["refused"]
        writer.close()
    reader, second, _ = await knock(ranks, rank=1)
    for writer in (first, second):
        await write_message(writer, Message({"ready": True}))
    await starting
    assert ranks.ready

    # A silent group: the first job stalls, and the generation is given up. More jobs than room are turned away.
    jobs = [asyncio.create_task(ranks.run({}, [GRID], 1.5)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await ranks.run({}, [GRID], 1.0)
    with pytest.raises(InvalidTask, match="3 ranks cannot run on a group of 2"):
        await ranks.run({}, [GRID] * 3, 1.0)
    given = await read_message(reader)
    assert given.head["ranks"] == [1]
    failures = await asyncio.gather(*jobs, return_exceptions=True)
    assert all(isinstance(failure, DeadlineExceeded) for failure in failures)
    assert ranks.rebuilds == 1
    assert not ranks.ready
    first.close()
    second.close()


async def test_ranks_launched_into_the_wrong_world_leave_and_the_start_says_why(tmp_path: Path) -> None:
    command = RankCommand(PROGRAM, argument=str(tmp_path), start_s=30.0)
    with pytest.raises(NodeUnavailable, match="did not start: rank 0 comes from a world of 1, this group has 2"):
        async with RankGroup(GroupSettings(size=2, start_s=30.0), ForkLauncher(1, command)):
            pass
