"""Hold files to 400 lines and functions to 60; count those over the recommended 300 and 30."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LIMIT, FILE_AIM = 400, 300
FUNCTION_LIMIT, FUNCTION_AIM = 60, 30


def hand_written() -> list[Path]:
    """Python files git tracks, generated stubs left out."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [ROOT / line for line in listed.splitlines() if not line.startswith("skyshore/v1/")]
    return [path for path in paths if path.exists()]


def functions(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """Name, first line and length of each function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def main() -> None:
    """Print what is too long; exit 1 if there is any, unless called with --warn."""
    too_long: list[str] = []
    long_files = long_functions = 0
    for path in hand_written():
        name, text = path.relative_to(ROOT), path.read_text()
        lines = text.count("\n")
        long_files += lines > FILE_AIM
        if lines > FILE_LIMIT:
            too_long.append(f"{name}: {lines} lines (limit {FILE_LIMIT})")
        for function, line, length in functions(ast.parse(text)):
            long_functions += length > FUNCTION_AIM
            if length > FUNCTION_LIMIT:
                too_long.append(f"{name}:{line} {function}: {length} lines (limit {FUNCTION_LIMIT})")
    print(f"{long_files} files over {FILE_AIM} lines, {long_functions} functions over {FUNCTION_AIM}")
    print("".join(f"{line}\n" for line in too_long), end="")
    if too_long and "--warn" not in sys.argv:
        sys.exit("Split what is too long.")


if __name__ == "__main__":
    main()
