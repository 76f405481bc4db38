"""Each sequence diagram is what its source says, and a page shows it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from scripts.make_diagrams import FOLDER, svg

SOURCES = sorted(FOLDER.glob("*.seq"))


def test_there_is_a_diagram_of_each_kind_of_request() -> None:
    assert {source.stem for source in SOURCES} == {"llm", "video", "simulation"}
    assert {drawing.stem for drawing in FOLDER.glob("*.svg")} == {source.stem for source in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_drawing_belongs_to_its_source(source) -> None:
    drawn = source.with_suffix(".svg").read_text(encoding="utf-8")
    assert drawn == svg(source.read_text(encoding="utf-8")), "run `make docs`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_everything_lies_on_the_card(source) -> None:
    root = ElementTree.fromstring(source.with_suffix(".svg").read_text(encoding="utf-8"))
    width = float(root.attrib["width"])
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        left = float(box.get("x", 0))
        assert left >= 0
        assert left + float(box.attrib["width"]) <= width


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_journey_shows_it(source) -> None:
    page = (FOLDER.parent / "journey.md").read_text(encoding="utf-8")
    assert re.search(rf"!\[[^\]]+\]\(diagrams/{source.stem}\.svg\)", page)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("lane a: A\nfrom here to there", "line 2 is no statement"),
        ("lane a: A\na -> b: call", "line 2 names no lane: b"),
    ],
)
def test_a_wrong_line_is_named(source: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        svg(source)
