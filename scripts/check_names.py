"""Hold public class names to one class each, over the whole repository.

Generated stubs (`skyshore/v1`) are left out: a message has the name of the domain class that it carries.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

from scripts.check_sizes import ROOT, hand_written

# Names that may stand for more than one class, each with its reason. The aim is none.
EXCEPTIONS: dict[str, str] = {}


def public_classes(tree: ast.AST) -> list[tuple[str, int]]:
    """Name and line of each class, nested ones too, whose name has no leading underscore."""
    return [(n.name, n.lineno) for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]


def repeated(paths: list[Path]) -> dict[str, list[str]]:
    """Class names that occur more than once, each with its places as `path:line`."""
    places = defaultdict(list)
    for path in paths:
        for name, line in public_classes(ast.parse(path.read_text(encoding="utf-8"))):
            places[name].append(f"{path.relative_to(ROOT)}:{line}")
    return {name: found for name, found in sorted(places.items()) if len(found) > 1 and name not in EXCEPTIONS}


def main() -> None:
    """Print the names used more than once; exit 1 if there are any, unless called with --warn."""
    found = repeated(hand_written())
    for name, places in found.items():
        print(f"{name}: {', '.join(places)}")
    print(f"{len(found)} public class names are used more than once")
    if found and "--warn" not in sys.argv:
        sys.exit("Rename all but one class of each name.")


if __name__ == "__main__":
    main()
