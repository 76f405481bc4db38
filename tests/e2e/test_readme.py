"""Runs the commands of the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.local_system import LocalSystem

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
USUAL_URL = "http://127.0.0.1:8080"

pytestmark = pytest.mark.timeout(300)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def block_with(language: str, words: str) -> str:
    (found,) = [block for block in blocks(language) if words in block]
    return found


def typed(system: LocalSystem, script: str, folder: Path, *, shell: tuple[str, ...]) -> str:
    env = {**os.environ, "SKYSHORE_STATE_DIR": str(system.state), "PYTHONPATH": str(ROOT)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    script = script.replace(USUAL_URL, system.url)
    done = subprocess.run(
        [*shell, script], cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bash(system: LocalSystem, script: str, folder: Path) -> str:
    return typed(system, script, folder, shell=("bash", "-euo", "pipefail", "-c"))


def test_every_block_of_commands_is_run_by_a_test() -> None:
    run_elsewhere = [block for block in blocks("sh") if block.startswith("make ")]
    words_of_each = ("chat/completions", "video/detections", "skyshore status", "skyshore compare")
    run_here = [block_with("sh", words) for words in words_of_each]
    assert sorted(run_elsewhere + run_here) == sorted(blocks("sh"))
    for target in re.findall(r"^make (\S+)", "".join(run_elsewhere), re.M):
        planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert re.search({"test": r"pytest", "demo": r"skyshore demo", "up": r"up"}[target], planned)


def test_the_chat_by_curl(real: LocalSystem, tmp_path: Path) -> None:
    assert "Paris" in bash(real, block_with("sh", "chat/completions"), tmp_path)


def test_the_clip_by_curl(real: LocalSystem, tmp_path: Path) -> None:
    said = bash(real, block_with("sh", "video/detections"), tmp_path)
    assert '"bicycle"' in said or '"person"' in said
    assert (tmp_path / "annotated.mp4").read_bytes()[4:8] == b"ftyp"


def test_the_official_client(real: LocalSystem, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="openai is not installed: pip install 'openai>=2'")
    assert typed(real, blocks("python")[0], tmp_path, shell=(sys.executable, "-c")).strip()


def test_the_commands_for_looking_around(real: LocalSystem, tmp_path: Path) -> None:
    said = bash(real, block_with("sh", "skyshore status"), tmp_path)
    for word in ("cloud-1", "round_robin", "Load audit"):
        assert word in said


def test_the_commands_for_comparing(real: LocalSystem, tmp_path: Path) -> None:
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    bash(real, block_with("sh", "skyshore compare"), tmp_path)
    assert (tmp_path / "runs" / "demo" / "report.html").stat().st_size > 10_000
