"""Python code that a page shows passes the project's linter and is formatted as the project's code is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCKS = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
]


def ruff(code: str, *arguments: str) -> str:
    """What ruff complains about; empty if nothing. The name of the file says where the code would lie."""
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "--stdin-filename", "docs/example.py", "-"]
    done = subprocess.run(command, cwd=ROOT, input=code, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def complaints(code: str) -> str:
    """A file (it opens with a docstring) must satisfy every rule; a part of one need not be documented."""
    part = [] if code.startswith('"""') else ["--ignore", "D"]
    return ruff(code, "check", "--quiet", *part) + ruff(code, "format", "--check", "--diff", "--quiet")


@pytest.mark.parametrize("code", BLOCKS)
def test_code_of_a_page_passes_the_linter(code: str) -> None:
    assert complaints(code) == ""


def test_pages_show_code() -> None:
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ('"""A file."""\n\n\ndef area_m2() -> float:\n    return 1.0\n', "D103"),
        ("print(undefined)\n", "F821"),
        ("x = {1:2}\n", "x = {1: 2}"),
    ],
)
def test_bad_code_would_be_found(code: str, rule: str) -> None:
    assert rule in complaints(code)
