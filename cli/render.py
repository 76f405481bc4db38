"""Draws report tables on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from skyshore.report.tables import Table

_STYLES = {"VALID": "green", "DEGRADED": "yellow", "INVALID": "bold red", "serving": "green"}


def show_table(console: Console, table: Table) -> None:
    """Print a table; words of judgement get their colour."""
    drawn = RichTable(
        title=table.title or None,
        title_justify="left",
        caption=table.note or None,
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for place, column in enumerate(table.columns):
        drawn.add_column(column, justify="right" if place else "left", overflow="fold", no_wrap=not place)
    for row in table.rows:
        drawn.add_row(*(f"[{style}]{cell}[/]" if (style := _STYLES.get(cell)) else cell for cell in row))
    console.print(drawn)
