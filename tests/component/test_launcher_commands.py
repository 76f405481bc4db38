"""The command line: quick to answer, one plain sentence when something is wrong."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SYSTEM = ("up", "down", "status", "nodes")
REST = (
    *(
        "demo",
        "detect",
        "replay",
        "simulate",
        "compare",
        "calibrate",
        "verify",
        "bench",
        "traces",
        "decisions",
        "explain",
        "evaluate",
        "policy",
        "models",
        "train",
        "profile",
    ),
)


def skyshore(*arguments: str, state: Path | None = None, **more_env: str) -> subprocess.CompletedProcess[str]:
    env = {"SKYSHORE_STATE_DIR": str(state or "/nonexistent"), "PATH": "/usr/bin:/bin", "COLUMNS": "120", **more_env}
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=50, check=False)


def test_help_names_every_command_and_costs_less_than_four_tenths_of_a_second_of_cpu() -> None:
    def cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    # CPU time, and the best of three: a busy machine is not the command's fault.
    costs = []
    for _ in range(3):
        before = cpu_s()
        answer = skyshore("--help")
        costs.append(cpu_s() - before)
    assert answer.returncode == 0
    assert all(f" {name} " in answer.stdout for name in (*SYSTEM, *REST))
    assert min(costs) < 0.4


@pytest.mark.parametrize("arguments", [["status"], ["nodes"], ["decisions"], ["policy", "show"]])
def test_without_a_system_every_command_says_so_in_a_sentence(arguments: list[str], tmp_path: Path) -> None:
    answer = skyshore(*arguments, state=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.strip() == f"skyshore: no system runs in {tmp_path}; start one with `skyshore up`"


def test_an_address_where_nobody_answers_is_named() -> None:
    answer = skyshore("decisions", "--url", "http://127.0.0.1:9")
    assert answer.returncode == 1
    assert "skyshore: no gateway answers at http://127.0.0.1:9" in answer.stderr


def test_down_without_a_system_is_no_error(tmp_path: Path) -> None:
    answer = skyshore("down", state=tmp_path)
    assert answer.returncode == 0
    assert "nothing runs" in answer.stderr


def test_a_store_that_does_not_answer_is_told_before_anything_is_started(tmp_path: Path) -> None:
    answer = skyshore("up", "--emulated", state=tmp_path, SKYSHORE_REDIS_URL="redis://127.0.0.1:9/0")
    assert answer.returncode == 1
    assert "redis://127.0.0.1:9/0 does not answer" in answer.stderr
    assert "unset SKYSHORE_REDIS_URL" in answer.stderr
    assert not list((tmp_path / "logs").glob("*.log"))


def test_an_unknown_bench_is_answered_with_those_there_are() -> None:
    answer = skyshore("bench", "nonsense")
    assert answer.returncode == 1
    assert "no bench 'nonsense'; there are" in answer.stderr


def test_a_mounted_group_answers_for_itself() -> None:
    answer = skyshore("traces", "make", "--help")
    assert answer.returncode == 0
    assert "skyshore traces make" in answer.stdout


def test_commands_import_nothing_heavy_before_they_run() -> None:
    heavy = "import sys, cli.main; print([m for m in ('grpc', 'numpy', 'redis', 'pydantic', 'av') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, timeout=50, check=True)
    assert answer.stdout.strip() == "[]"


def test_every_command_the_documents_show_exists() -> None:
    root = Path(__file__).parents[2]
    pages = [root / "README.md", root / "Makefile", *(root / "docs").rglob("*.md")]
    shown = {
        name
        for page in pages
        if page.exists()
        for name in re.findall(r"(?:^\s*(?:\$ )?|`|\$\(BIN\)/)skyshore ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    assert {"up", "demo", "replay", "traces"} <= shown
    missing = shown - set(SYSTEM) - set(REST)
    assert not missing, f"shown in documents, but there is no such command: {missing}"
