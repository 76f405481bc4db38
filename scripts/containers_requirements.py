"""Print the requirements of one process: `containers_requirements.py EXTRA... [--swap NAME=REQUIREMENT]`.

A Dockerfile installs this list before it copies any code, so that a change of code reinstalls no dependency.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

PROJECT = Path("pyproject.toml")
_NAME = re.compile(r"^[A-Za-z0-9._-]+")
_OWN = re.compile(r"^skyshore\[(?P<extras>[^]]+)\]$")


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """The base dependencies and those of `extras`, with the extras of this project resolved; each line once, sorted.

    Raises:
        KeyError: pyproject.toml has no such extra.
    """
    found: set[str] = set(project["dependencies"])
    waiting = list(extras)
    while waiting:
        for line in project["optional-dependencies"][waiting.pop()]:
            own = _OWN.match(line)
            if own:
                waiting += own["extras"].split(",")
            else:
                found.add(line)
    return sorted(found)


def swapped(lines: list[str], swaps: dict[str, str]) -> list[str]:
    """Replace whole requirements by package name, for example `onnxruntime` by its GPU build.

    Raises:
        KeyError: no requirement has this name.
    """
    for old in swaps.keys() - {_name(line) for line in lines}:
        raise KeyError(f"nothing to swap: {old} is not required")
    return [swaps.get(_name(line), line) for line in lines]


def _name(line: str) -> str:
    match = _NAME.match(line)
    return match[0] if match else line


def main() -> None:
    """Read pyproject.toml in the working directory and print one requirement per line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="+")
    parser.add_argument("--swap", action="append", default=[], metavar="NAME=REQUIREMENT")
    parser.add_argument("--add", action="append", default=[], metavar="REQUIREMENT")
    chosen = parser.parse_args()
    project = tomllib.loads(PROJECT.read_text())["project"]
    lines = swapped(requirements(project, chosen.extras), dict(swap.split("=", 1) for swap in chosen.swap))
    lines += chosen.add
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
