"""Draws report tables on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from skyshore.report.tables import Table

PIPE_WIDTH = 160
_STYLES = {"VALID": "green", "DEGRADED": "yellow", "INVALID": "bold red", "serving": "green"}


def say(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print one line of texts or (text, style) pairs. Brackets are not markup, and long paths are not wrapped."""
    console.print(Text.assemble(*parts), highlight=False, soft_wrap=True)


def show_table(console: Console, table: Table) -> None:
    """Print a table; words such as VALID get a colour."""
    drawn = RichTable(
        title=Text(table.title) if table.title else None,
        title_justify="left",
        caption=Text(table.note) if table.note else None,
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for place, column in enumerate(table.columns):
        last = place == len(table.columns) - 1
        justify: JustifyMethod = "left" if place == 0 or (last and table.wide_last) else "right"
        drawn.add_column(column, justify=justify, overflow="fold", no_wrap=not (last and table.wide_last))
    for row in table.rows:
        drawn.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in row))
    # A pipe has no width; the table must not be cut.
    width = console.width
    if not console.is_terminal:
        console.width = max(width, PIPE_WIDTH)
    console.print(drawn)
    console.width = width
