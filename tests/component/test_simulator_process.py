"""The simulator as a command: figures that repeat, mistakes in one line, and Ctrl-C that keeps what was done."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import psutil

DEMO = Path(__file__).parents[2] / "scenarios" / "demo.toml"


async def simulate(*arguments: str, interrupt: bool = False) -> tuple[int | None, str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulator", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    if interrupt:
        assert child.stderr is not None
        assert b"simulating" in await child.stderr.readline()
        process = psutil.Process(child.pid)
        began_s = process.cpu_times().user
        while process.cpu_times().user < began_s + 0.5:  # noqa: ASYNC110 - by its own clock it is in the midst of it
            await asyncio.sleep(0.01)
        child.send_signal(signal.SIGINT)
    out, err = await child.communicate()
    return child.returncode, out.decode(), err.decode()


async def test_a_scenario_gives_the_same_figures_twice_and_others_under_another_policy():
    runs = [json.loads((await simulate(str(DEMO)))[1]) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0]["complete"] is True
    assert sum(runs[0]["statuses"].values()) == runs[0]["requests"] > 100
    other = json.loads((await simulate(str(DEMO), "cloud_only"))[1])
    assert other["schedule_sha256"] == runs[0]["schedule_sha256"], "the same requests"
    assert other["decisions_sha256"] != runs[0]["decisions_sha256"]
    assert other["edge_share"] == 0.0


async def test_ctrl_c_leaves_a_valid_partial_result(tmp_path):
    long = DEMO.read_text(encoding="utf-8").replace("duration_s = 60", "duration_s = 10000")
    path = tmp_path / "long.toml"
    path.write_text(long, encoding="utf-8")
    status, out, err = await simulate(str(path), interrupt=True)
    figures = json.loads(out)
    assert (status, figures["complete"]) == (0, False), err
    assert 0 < figures["requests"] < 60_000
    assert sum(figures["statuses"].values()) == figures["requests"]


async def test_mistakes_are_one_line_and_an_exit_status(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text(DEMO.read_text(encoding="utf-8").replace('profile = "t4"', 'profile = "t5"'), encoding="utf-8")
    for arguments, said in (
        ((str(tmp_path / "none.toml"),), "No such file"),
        ((str(bad),), "node 'cloud-1'"),
        ((str(DEMO), "no_such_policy"), "no_such_policy"),
    ):
        status, out, err = await simulate(*arguments)
        assert (status, out) == (1, "")
        assert err.startswith("error: ") and said in err and err.count("\n") == 1
