"""Damaged uploads through the whole gateway: each is refused or ends, and nothing is left open."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, World, world
from tests.fakes.memory_store import MemoryStore

COUNT = 60


async def send(w: World, data: bytes, route: str) -> tuple[int, str]:
    """Status of the answer, and of an accepted clip how its task ended."""
    answer = await w.client.post(
        f"/v1/video/{route}", files={"file": ("clip.mp4", data, "video/mp4")}, params={"wait": 20}
    )
    body = answer.json()
    return answer.status_code, "" if answer.status_code == 200 else body["error"]["code"]


def damaged(seeds: list[bytes], number: int, rng: np.random.Generator) -> bytes:
    data = bytearray(seeds[number % len(seeds)])
    match number // len(seeds) % 3:
        case 0:
            data = data[: int(rng.integers(1, len(data)))]
        case 1:
            for at in rng.integers(0, len(data), 1 + len(data) // 100):
                data[at] ^= 1 << int(rng.integers(8))
        case _:
            start, end = sorted(rng.integers(0, len(data), 2))
            del data[start:end]
    return bytes(data)


@pytest.mark.timeout(120)
async def test_damaged_uploads_are_refused_or_end_and_leave_nothing_open(tmp_path: Path) -> None:
    makers = [("mp4", "mpeg4"), ("avi", "mpeg4"), ("ts", "libx264"), ("mkv", "libx264")]
    clips = [make_clip(tmp_path / f"{i}.{suffix}", codec=codec) for i, (suffix, codec) in enumerate(makers)]
    seeds = [clip.read_bytes() for clip in clips]
    rng = np.random.default_rng(8)
    async with world(tmp_path / "s", FakeNode("n"), gateway_jobs_in_flight=4) as w:
        assert (await send(w, seeds[0], "detections"))[0] == 200
        before = len(os.listdir("/proc/self/fd"))
        uploads = tmp_path / "s" / "uploads"
        seen = []
        for number in range(COUNT):
            route = ("detections", "classifications")[number % 2]
            seen.append(await send(w, damaged(seeds, number, rng), route))
        assert {status for status, _ in seen} <= {200, 422}
        assert {code for _, code in seen} <= {"", "invalid_media"}
        assert sum(status == 422 for status, _ in seen) > COUNT // 5
        assert isinstance(w.store, MemoryStore)
        assert len(os.listdir(uploads)) == len(w.store._tasks), "refused uploads are deleted"
        assert (await send(w, seeds[1], "detections"))[0] == 200
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) <= before + 4, "idle connections of the client's pool at most"
