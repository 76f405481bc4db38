"""A whole system can be reached from this machine only, and its files by this user only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cli.up import MODELS, cached_models
from tests.e2e.local_system import UP_S, LocalSystem
from tests.fakes.listeners import listening, wider_than_loopback, with_children

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("scenario", [(), ("scenarios/demo.toml",)], ids=["laptop", "links"])
def test_no_process_listens_wider_than_loopback_and_no_file_is_readable_by_others(
    skyshore: LocalSystem, scenario: tuple[str, ...]
) -> None:
    words = [str(ROOT / each) for each in scenario]
    # A scenario with links is emulated here; without one, the real cloud node starts its ranks where models are there.
    words += [] if not scenario and cached_models().issuperset(MODELS) else ["--emulated"]
    before = os.umask(0)
    try:
        skyshore("up", "--detach", "--any-ports", *words, timeout_s=UP_S)
    finally:
        os.umask(before)
    found = listening(with_children(skyshore.processes().values()))
    assert len(found) >= 7
    assert wider_than_loopback(found) == []
    open_files = [str(path) for path in (skyshore.state, *skyshore.state.rglob("*")) if path.stat().st_mode & 0o077]
    assert open_files == []
    assert stat.S_IMODE(skyshore.state.stat().st_mode) == 0o700
