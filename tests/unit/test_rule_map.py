"""The rule map of ADR 12: every rule stands where the map says, and stands once."""

from __future__ import annotations

import re

import pytest

from scripts.rule_map import PAGE, ROOT, ROW, with_line_numbers

MAP = PAGE.read_text(encoding="utf-8")
ROWS = [pytest.param(row, id=row["name"]) for row in ROW.finditer(MAP)]


def test_the_map_has_the_rules() -> None:
    assert len(ROWS) >= 45
    assert len({row.values[0]["name"] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_listed_line_defines_the_function_it_names(row: re.Match[str]) -> None:
    lines = (ROOT / row["file"]).read_text(encoding="utf-8").splitlines()
    assert lines[int(row["line"]) - 1].startswith(f"def {row['name']}("), "the lines moved: run `make docs`"


def test_make_docs_corrects_a_line_that_moved() -> None:
    row = next(ROW.finditer(MAP))
    moved = MAP.replace(f"{row['file']}:{row['line']} ", f"{row['file']}:1 ", 1)
    assert moved != MAP
    assert with_line_numbers(moved) == with_line_numbers(MAP)


def test_a_function_that_is_gone_is_named() -> None:
    with pytest.raises(ValueError, match=r"choose\.py has no function take_worst"):
        with_line_numbers("| worst arm | `take_worst` | skyshore/rules/choose.py:1 |")
