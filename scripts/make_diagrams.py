"""Draw the sequence diagrams of the pages: docs/diagrams/*.seq → *.svg beside them. `make docs` runs it.

A source has one statement per line, `|` starts a new line of text, `#` a comment:

    lane NAME: TEXT            a column, from left to right
    FROM -> TO: TEXT           a call (solid); `-->` is a reply or an event (dashed)
    note FIRST [LAST]: TEXT    a box on one column, or over several
    group TEXT / end           a frame around the statements between
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "diagrams"
LINE, MARGIN, BOX, PAD = 16, 24, 46, 12
LETTER = 6.6  # width of a mean letter of 13 px
STYLE = """
  text { font: 13px Helvetica, Arial, sans-serif; fill: #1f2d3a; }
  .card { fill: #f7f9fb; } .lane { fill: #ffffff; stroke: #4a6076; stroke-width: 1.5; }
  .life { stroke: #a9b8c6; stroke-width: 1.2; } .note { fill: #e3eefa; stroke: #b4cbe3; }
  .group { fill: none; stroke: #7b93a9; stroke-dasharray: 2 3; } .tab { fill: #5b6b7a; font-style: italic; }
  .name { font-weight: bold; } .arrow { fill: none; stroke: #33475a; stroke-width: 1.5; } .tip { fill: #33475a; }
  .reply { stroke-dasharray: 5 4; } .said { stroke: #f7f9fb; stroke-width: 5; paint-order: stroke; }
  @media (prefers-color-scheme: dark) {
    text { fill: #dbe4ec; } .card { fill: #17212b; } .lane { fill: #22303d; stroke: #8fa6bb; }
    .life { stroke: #4a5c6c; } .note { fill: #1f3a56; stroke: #3d6288; } .group { stroke: #7189a0; }
    .tab { fill: #a9b8c6; } .arrow { stroke: #b9cad9; } .tip { fill: #b9cad9; } .said { stroke: #17212b; }
  }
"""


@dataclass
class Diagram:
    """What a source says, and where the next statement is drawn (`y`)."""

    lanes: dict[str, list[str]] = field(default_factory=dict)
    centre: dict[str, float] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)
    groups: list[tuple[float, int]] = field(default_factory=list)
    width: float = 0.0
    y: float = MARGIN + BOX + 14


def width_of(lines: list[str]) -> float:
    """Pixels of the longest line."""
    return max(map(len, lines)) * LETTER


def texts(lines: list[str], x: float, y: float, style: str, anchor: str = "middle") -> list[str]:
    """One element per line; `y` is the baseline of the first."""
    return [
        f'<text class="{style}" x="{x:g}" y="{y + LINE * n:g}" text-anchor="{anchor}">{escape(line)}</text>'
        for n, line in enumerate(lines)
    ]


def place_lanes(diagram: Diagram, statements: list[tuple[str, ...]]) -> None:
    """Give each lane its x: neighbours are as far apart as the texts between them need."""
    names = list(diagram.lanes)
    half = [width_of(diagram.lanes[name]) / 2 + PAD for name in names]
    gaps = [max(90.0, half[n] + half[n + 1] + 16) for n in range(len(names) - 1)]
    for kind, first, last, text in statements:
        if kind in ("->", "-->", "note"):
            left, right = sorted((names.index(first), names.index(last)))
            span = max(right - left, 1)
            needed = (width_of(text.split("|")) + 2 * PAD) / (2 if left == right else 1) - sum(gaps[left : left + span])
            for n in range(left, min(left + span, len(gaps))):
                gaps[n] += max(0.0, needed) / span
    notes = [(first, width_of(text.split("|")) / 2 + PAD) for kind, first, last, text in statements if first == last]
    for n in (0, -1):  # the outer lanes have no neighbour that makes room for their notes
        half[n] = max([half[n], *(width for name, width in notes if name == names[n])])
    for n, name in enumerate(names):
        diagram.centre[name] = MARGIN + 12 + half[0] + sum(gaps[:n])
    diagram.width = diagram.centre[names[-1]] + half[-1] + 12 + MARGIN


def draw_arrow(diagram: Diagram, kind: str, first: str, last: str, lines: list[str]) -> None:
    """A call or a reply, with its text above the line."""
    start, end = diagram.centre[first], diagram.centre[last]
    style = "arrow reply" if kind == "-->" else "arrow"
    diagram.y += LINE * len(lines) + 8
    y = diagram.y
    diagram.parts += texts(lines, (start + end) / 2, y - 6 - LINE * (len(lines) - 1), "said")
    side = 1 if end > start else -1
    diagram.parts.append(f'<path class="{style}" d="M{start:g} {y:g} H{end - 8 * side:g}"/>')
    diagram.parts.append(f'<path class="tip" d="M{end:g} {y:g} l{-10 * side} -4.5 v9 z"/>')
    diagram.y += 8


def draw_note(diagram: Diagram, first: str, last: str, lines: list[str]) -> None:
    """A box with text, centred on one lane or over several."""
    left, right = sorted((diagram.centre[first], diagram.centre[last]))
    middle, width = (left + right) / 2, max(width_of(lines) + 2 * PAD, right - left + 40)
    height = LINE * len(lines) + 10
    x = min(max(middle - width / 2, MARGIN / 2), diagram.width - MARGIN / 2 - width)
    diagram.parts.append(
        f'<rect class="note" x="{x:g}" y="{diagram.y + 6:g}" width="{width:g}" height="{height}" rx="6"/>'
    )
    diagram.parts += texts(lines, x + width / 2, diagram.y + 6 + LINE + 1, "")
    diagram.y += height + 6


def open_group(diagram: Diagram, lines: list[str]) -> None:
    """Begin a frame; its text is in the upper left corner."""
    diagram.y += 10
    diagram.groups.append((diagram.y, len(diagram.parts)))
    x = MARGIN / 2 + 8 + 8 * (len(diagram.groups) - 1)
    diagram.parts += texts(lines, x, diagram.y + LINE, "tab said", "start")
    diagram.y += LINE * len(lines) + 4


def close_group(diagram: Diagram) -> None:
    """Draw the frame behind what it holds."""
    top, at = diagram.groups.pop()
    inset = MARGIN / 2 + 8 * len(diagram.groups)
    size = f'width="{diagram.width - 2 * inset:g}" height="{diagram.y + 8 - top:g}"'
    diagram.parts.insert(at, f'<rect class="group" x="{inset:g}" y="{top:g}" {size} rx="8"/>')
    diagram.y += 16


def parse(source: str) -> tuple[Diagram, list[tuple[str, ...]]]:
    """The lanes, and each other statement as (kind, first lane, last lane, text). Raises ValueError with the line."""
    diagram, statements = Diagram(), list[tuple[str, ...]]()
    for number, line in enumerate(source.splitlines(), 1):
        text = line.strip()
        if lane := re.fullmatch(r"lane (\w+): (.+)", text):
            diagram.lanes[lane[1]] = lane[2].split("|")
        elif arrow := re.fullmatch(r"(\w+) (-->|->) (\w+): (.+)", text):
            statements.append((arrow[2], arrow[1], arrow[3], arrow[4]))
        elif note := re.fullmatch(r"note (\w+)(?: (\w+))?: (.+)", text):
            statements.append(("note", note[1], note[2] or note[1], note[3]))
        elif group := re.fullmatch(r"group (.+)|end", text):
            statements.append(("group" if group[1] else "end", "", "", group[1] or ""))
        elif text and not text.startswith("#"):
            raise ValueError(f"line {number} is no statement: {text!r}; see scripts/make_diagrams.py")
        if statements and (unknown := {*statements[-1][1:3]} - {*diagram.lanes, ""}):
            raise ValueError(
                f"line {number} names no lane: {', '.join(sorted(unknown))}; write `lane NAME: TEXT` first"
            )
    return diagram, statements


def svg(source: str) -> str:
    """The drawing of a source. Raises ValueError for a line that is no statement."""
    diagram, statements = parse(source)
    place_lanes(diagram, statements)
    for kind, first, last, text in statements:
        lines = text.split("|")
        if kind == "note":
            draw_note(diagram, first, last, lines)
        elif kind == "group":
            open_group(diagram, lines)
        elif kind == "end":
            close_group(diagram)
        else:
            draw_arrow(diagram, kind, first, last, lines)
    return document(diagram)


def document(diagram: Diagram) -> str:
    """Card, lanes and parts as one SVG with a size of its own, so that a narrow window scrolls it."""
    width, height = round(diagram.width), round(diagram.y + MARGIN)
    back, heads = [f'<rect class="card" width="{width}" height="{height}" rx="10"/>'], []
    for name, lines in diagram.lanes.items():
        x, half = diagram.centre[name], width_of(lines) / 2 + PAD
        back.append(f'<path class="life" d="M{x:g} {MARGIN + BOX} V{height - 12}"/>')
        box = f'x="{x - half:g}" y="{MARGIN}" width="{2 * half:g}" height="{BOX}"'
        heads.append(f'<rect class="lane" {box} rx="8"/>')
        top = MARGIN + BOX / 2 + 5 - LINE * (len(lines) - 1) / 2
        heads += texts(lines[:1], x, top, "name") + texts(lines[1:], x, top + LINE, "tab")
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    body = "\n".join([*back, *diagram.parts, *heads])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{body}\n</svg>\n'


def main() -> None:
    """Write every drawing."""
    for source in sorted(FOLDER.glob("*.seq")):
        try:
            source.with_suffix(".svg").write_text(svg(source.read_text(encoding="utf-8")), encoding="utf-8")
        except ValueError as error:
            sys.exit(f"{source.name}: {error}")


if __name__ == "__main__":
    main()
