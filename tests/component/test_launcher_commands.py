"""The command line: quick to answer, one plain sentence when something is wrong."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

from cli.main import GROUPS

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


def skyshore(
    *arguments: str, state: Path | None = None, folder: Path | None = None, **more_env: str
) -> subprocess.CompletedProcess[str]:
    env = {"SKYSHORE_STATE_DIR": str(state or "/nonexistent"), "PATH": "/usr/bin:/bin", "COLUMNS": "120", **more_env}
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=150, check=False)


def test_help_names_every_command_and_costs_less_than_four_tenths_of_a_second_of_cpu() -> None:
    def cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    # CPU time, and the best of some: what a busy machine's caches add is not the command's fault.
    costs = [1.0]
    while min(costs) >= 0.4 and len(costs) <= 10:
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


NO_TEXT = b"\x00\xff\xfe a clip, say"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["simulate", "none.toml"], "cannot read .*none.toml: No such file"),
        (["simulate", "clip.mp4"], "cannot read .*clip.mp4: it is not a text file"),
        (["simulate", "."], "cannot read .*: Is a directory"),
        (["compare", "demo.toml", "--loads", "nan"], "a load is a factor above 0"),
        (["simulate", "demo.toml", "--out", "file/out"], "file/out.*: Not a directory"),
        (["evaluate", "random", "--on", "none.parquet"], "none.parquet"),
        (["replay", "a.jsonl", "--url", "nonsense"], "'nonsense' is not a gateway address"),
        (["traces", "show", "clip.mp4"], "clip.mp4 is not a text file"),
        (["traces", "check", "file"], "file: line 1 is not a schedule header"),
    ],
)
def test_what_the_user_got_wrong_is_one_sentence_and_no_traceback(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "clip.mp4").write_bytes(NO_TEXT)
    (tmp_path / "file").write_text("{}\n")
    (tmp_path / "demo.toml").write_text((root / "scenarios" / "demo.toml").read_text())
    answer = skyshore(*arguments, state=tmp_path, folder=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith("skyshore: ")
    assert answer.stderr.count("\n") == 1
    assert re.search(said, answer.stderr)


@pytest.mark.parametrize("seconds", ["-3", "0", "nan", "inf"])
def test_a_schedule_of_no_length_or_no_end_is_refused(seconds: str, tmp_path: Path) -> None:
    answer = skyshore("traces", "make", str(tmp_path / "a.jsonl"), "--seconds", seconds, "--llm", "poisson rate=1")
    assert answer.returncode == 2
    assert "--seconds" in answer.stderr


def test_every_option_says_what_it_is_for() -> None:
    groups = [import_module(module).app for module, _, _ in GROUPS.values()]
    commands = [typer.main.get_command(each) for each in (import_module("cli.main").app, *groups)]
    options = [
        (command.name, option.name)
        for group in commands
        for command in (*getattr(group, "commands", {}).values(), group)
        for option in command.params
        if not getattr(option, "help", "")
    ]
    assert options == []


def test_an_unknown_bench_is_answered_with_those_there_are() -> None:
    answer = skyshore("bench", "nonsense")
    assert answer.returncode == 1
    assert "no bench 'nonsense'; choose one of" in answer.stderr


def test_a_mounted_group_answers_for_itself() -> None:
    answer = skyshore("traces", "make", "--help")
    assert answer.returncode == 0
    assert "skyshore traces make" in answer.stdout


def test_commands_import_nothing_heavy_before_they_run() -> None:
    heavy = "import sys, cli.main; print([m for m in ('grpc', 'numpy', 'redis', 'pydantic', 'av') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, timeout=150, check=True)
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
