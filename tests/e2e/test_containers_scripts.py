"""What the scripts around the containers do, with commands that only say that they were called."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.containers_system import ROOT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with the scripts and stubs of everything they call."""
    for name in ("containers_up.sh", "ci_containers.sh"):
        script = tmp_path / "repo" / "scripts" / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_bytes((ROOT / "scripts" / name).read_bytes())
        script.chmod(0o755)
    for name in ("bin/make", "repo/.venv/bin/skyshore", "repo/.venv/bin/python"):
        stub(tmp_path / name, 'echo "$(basename "$0") $*"')
    return tmp_path


def stub(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def run_script(tree: Path, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {"PATH": f"{tree / 'bin'}:/usr/bin:/bin", "HOME": str(tree), **environment}
    command = [str(tree / "repo" / "scripts" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=plain, check=False)


ENGINE_AWAY = '[ "$1" != info ]'
ENGINE = 'case "$*" in *" port "*) echo 127.0.0.1:8080;; *" logs "*) ;; *) echo "docker $*";; esac'


def test_make_up_uses_the_local_launcher_where_no_engine_answers_and_says_so(tree: Path) -> None:
    stub(tree / "bin" / "docker", ENGINE_AWAY)
    done = run_script(tree, "containers_up.sh", "up")
    assert done.returncode == 0, done.stderr
    assert "starting with the local launcher" in done.stderr
    assert "skyshore up --detach" in done.stdout
    assert "docker" not in done.stdout


def test_make_up_uses_containers_where_an_engine_answers_and_says_so(tree: Path) -> None:
    stub(tree / "bin" / "docker", ENGINE)
    done = run_script(tree, "containers_up.sh", "up", SKYSHORE_LAYERS="links")
    assert done.returncode == 0, done.stderr
    assert "starting with docker compose" in done.stderr
    assert "-f compose/compose.yaml -f compose/compose.links.yaml up -d --build --wait" in done.stdout
    assert "ready: http://127.0.0.1:8080" in done.stderr
    assert "EMULATED" not in done.stderr
    assert "skyshore up" not in done.stdout


def test_make_up_tells_of_nodes_that_emulate(tree: Path) -> None:
    stub(tree / "bin" / "docker", ENGINE.replace('" logs "*) ;;', '" logs "*) echo "models missing; runs EMULATED" ;;'))
    done = run_script(tree, "containers_up.sh", "up")
    assert "1 nodes are EMULATED" in done.stderr
    assert "skyshore models fetch" in done.stderr


def test_make_up_can_be_told_what_to_use(tree: Path) -> None:
    stub(tree / "bin" / "docker", ENGINE)
    assert "local launcher" in run_script(tree, "containers_up.sh", "up", SKYSHORE_WITH="local").stderr
    wrong = run_script(tree, "containers_up.sh", "up", SKYSHORE_WITH="magic")
    assert wrong.returncode == 2
    assert "compose or local, not 'magic'" in wrong.stderr


def test_make_down_stops_whichever_runs(tree: Path) -> None:
    stub(tree / "bin" / "docker", ENGINE_AWAY)
    assert "nothing runs" in run_script(tree, "containers_up.sh", "down").stderr
    (tree / "repo" / ".state").mkdir()
    assert "skyshore down" in run_script(tree, "containers_up.sh", "down").stdout
    stub(tree / "bin" / "docker", ENGINE)
    assert "docker compose -p skyshore down" in run_script(tree, "containers_up.sh", "down").stdout


def test_ci_says_why_it_skips(tree: Path) -> None:
    stub(tree / "bin" / "docker", ENGINE_AWAY)
    done = run_script(tree, "ci_containers.sh")
    assert done.returncode == 0
    assert done.stdout.startswith("SKIPPED tests in containers: no container engine answers and ../shared/ci/")
    assert "python -m pytest tests/e2e/test_containers" in done.stdout, "what needs no engine runs all the same"


def test_ci_tests_containers_once_and_last() -> None:
    called = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and line[0] not in "# "]
    (suite,) = [line for line in called if line.startswith("make ")]
    assert re.search(r"make .* test .*--ignore-glob=tests/e2e/test_containers\*", suite)
    assert called.count("scripts/ci_containers.sh") == 1
    assert called[-1] == "scripts/ci_containers.sh"


def test_ci_leaves_containers_out_of_a_run_that_is_late_and_says_so(tree: Path) -> None:
    script = tree / "repo" / ".ci" / "run"
    script.parent.mkdir()
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    stub(tree / "repo" / "scripts" / "ci_containers.sh", "echo containers")
    for before_s, said in (("-1", "SKIPPED container tests"), ("960", "containers")):
        plain = {"PATH": f"{tree / 'bin'}:/usr/bin:/bin", "PYTHON": "python3", "CI_CONTAINERS_BEFORE_S": before_s}
        done = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=plain, check=True)
        assert done.stdout.splitlines()[-1].startswith(said)


def test_ci_starts_an_engine_where_it_can_and_stops_the_one_it_started(tree: Path) -> None:
    if os.getuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("only root on Debian may install an engine")
    marker = tree / "engine-runs"
    stub(tree / "bin" / "docker", f'[ "$1" != info ] || [ -e {marker} ]')
    engine = f'echo "engine $1"; case $1 in up) touch {marker};; down) rm {marker};; esac'
    stub(tree / "shared" / "ci" / "container-engine", engine)
    done = run_script(tree, "ci_containers.sh", "-q")
    lines = done.stdout.splitlines()
    assert [lines[0], lines[-1]] == ["engine up", "engine down"]
    assert lines[-2].startswith("container part: ")
    assert "python -m pytest tests/e2e/test_containers" in lines[1]
    assert not marker.exists()
    marker.touch()
    assert "engine" not in run_script(tree, "ci_containers.sh").stdout
    assert marker.exists(), "an engine that was there already stays"
