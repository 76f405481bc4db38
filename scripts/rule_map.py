"""The line numbers of the rule map in ADR 12: which function holds each rule, and where it stands."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "adr" / "0012-one-engine-kernels-over-records.md"
ROW = re.compile(r"^\| (?P<rule>.+) \| `(?P<name>\w+)` \| (?P<file>[\w/]+\.py):(?P<line>\d+) \|$", re.M)


def with_line_numbers(page: str) -> str:
    """The page with the present line of every function.

    Raises:
        ValueError: a function is not in its file.
    """
    return ROW.sub(lambda row: f"| {row['rule']} | `{row['name']}` | {row['file']}:{_line_of(row)} |", page)


def update() -> None:
    """Write the present line numbers into the page."""
    PAGE.write_text(with_line_numbers(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def _line_of(row: re.Match[str]) -> int:
    lines = (ROOT / row["file"]).read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if line.startswith(f"def {row['name']}(")]
    if len(found) != 1:
        raise ValueError(f"{row['file']} has no function {row['name']}; correct the rule map in {PAGE.name}")
    return found[0]
