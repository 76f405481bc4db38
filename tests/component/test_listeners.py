"""Nothing listens where other machines can connect, unless a setting says so."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import psutil
import pytest

from skyshore.runtime.private_files import make_private
from tests.fakes.listeners import listening, wider_than_loopback, with_children


@pytest.mark.parametrize("kind", ["ForkLauncher", "TorchrunLauncher"])
async def test_ranks_and_their_rendezvous_listen_on_loopback(kind, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[cloud]'")
    from cloud_node.dsp import launcher
    from cloud_node.dsp.group import GroupSettings, RankGroup

    command = launcher.RankCommand("tests.component.dsp_programs:build", argument=str(tmp_path), start_s=120.0)
    async with RankGroup(GroupSettings(size=2, start_s=120.0), getattr(launcher, kind)(2, command)) as group:
        me = psutil.Process()
        ranks = [psutil.Process(pid) for pid in group.pids]
        found = listening(with_children([me, *ranks]))
        assert len(group.pids) == 2
        assert len(found) >= 2, "the front and the store listen"
        assert wider_than_loopback(found) == []


@pytest.mark.parametrize(
    ("module", "variable"),
    [
        ("gateway", "SKYSHORE_GATEWAY_LISTEN"),
        ("services.scheduler", "SKYSHORE_SCHEDULER_LISTEN"),
        ("services.profiler", "SKYSHORE_PROFILER_LISTEN"),
        ("services.links", "SKYSHORE_LINKS_LISTEN"),
        ("edge_node", "SKYSHORE_NODE_LISTEN"),
        ("cloud_node", "SKYSHORE_NODE_LISTEN"),
    ],
)
def test_a_process_refuses_to_listen_wider_without_the_setting(module, variable, tmp_path):
    env = {**os.environ, variable: "0.0.0.0:0", "SKYSHORE_STATE_DIR": str(tmp_path), "SKYSHORE_NODE_ENGINE": "emulated"}
    done = subprocess.run(
        [sys.executable, "-m", module], env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: 0.0.0.0:0 can be reached from other machines")


def test_a_state_folder_becomes_private_and_a_shared_one_is_refused(tmp_path):
    before = os.umask(0)
    try:
        old, new = tmp_path / "old", tmp_path / "a" / "new"
        old.mkdir(mode=0o755)
        make_private(old)
        make_private(new)
        (new / "file").touch()
        assert [stat.S_IMODE(path.stat().st_mode) for path in (old, new, new / "file")] == [0o700, 0o700, 0o600]
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o1777)
        with pytest.raises(OSError, match="SKYSHORE_STATE_DIR"):
            make_private(shared)
    finally:
        os.umask(before)
