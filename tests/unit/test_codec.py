"""Documents keep every value, in the form that older versions wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.codec.document import from_document, to_document
from skyshore.codec.fields import fields_of, has_fields, is_enum
from skyshore.domain.job import TaskRecord
from skyshore.domain.node import Link
from skyshore.scheduling import events
from skyshore.scheduling.core import CoreSettings


class Colour(StrEnum):
    RED = "red"


class Point(NamedTuple):
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Everything:
    name: str
    count: int = 3
    colour: Colour | None = None
    data: bytes = b""
    line: tuple[Point, ...] = ()
    note: tuple[str, ...] | None = None
    table: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)


FULL = Everything("a", 0, Colour.RED, b"\xff", (Point(1.0),), ("x",), {"p": {"q": 0.5}})


def test_a_document_is_plain_json() -> None:
    assert json.loads(json.dumps(to_document(FULL))) == {
        "name": "a",
        "count": 0,
        "colour": "red",
        "data": "/w==",
        "line": [{"x": 1.0, "y": 0.0}],
        "note": ["x"],
        "table": {"p": {"q": 0.5}},
    }


def test_defaults_are_left_out_on_request() -> None:
    assert to_document(Everything("a"), omit_defaults=True) == {"name": "a", "table": {}}
    assert to_document(FULL, omit_defaults=True)["line"] == ({"x": 1.0},)


@pytest.mark.parametrize("omit_defaults", [False, True])
def test_a_document_returns_equal(omit_defaults: bool) -> None:
    for value in (FULL, Everything("a")):
        text = json.dumps(to_document(value, omit_defaults=omit_defaults))
        assert from_document(Everything, json.loads(text)) == value


def test_numbers_stay_equal_to_the_bit() -> None:
    text = '{"x":1,"y":1e+16}'
    read = from_document(Point, json.loads(text))
    assert json.dumps(to_document(read), separators=(",", ":")) == text


SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(allow_nan=False),
    str: st.text(max_size=9),
    bytes: st.binary(max_size=9),
    bool: st.booleans(),
    Mapping[str, str]: st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    Mapping[str, Mapping[str, float | str | bool]]: st.just({"cs_ucb": {"delta": 0.2, "mode": "a", "on": True}}),
}


def values(cls: type[Any]) -> st.SearchStrategy[Any]:
    known = {}
    for entry in fields_of(cls):
        if has_fields(entry.type):
            one = values(entry.type)
        else:
            one = st.sampled_from(entry.type) if is_enum(entry.type) else SCALARS[entry.type]
        one = st.lists(one, max_size=2).map(tuple) if entry.repeated else one
        known[entry.name] = st.none() | one if entry.optional else one
    return st.builds(cls, **known)


CLASSES: list[type[Any]] = [TaskRecord, Link, CoreSettings, *get_args(events.Event)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@settings(max_examples=40)
@given(data=st.data(), omit_defaults=st.booleans())
def test_every_class_that_is_stored_as_json_returns_equal(
    cls: type[Any], data: st.DataObject, omit_defaults: bool
) -> None:
    value = data.draw(values(cls))
    text = json.dumps(to_document(value, omit_defaults=omit_defaults))
    assert from_document(cls, json.loads(text)) == value


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"x": 1.0, "z": 1.0}, "unexpected keyword argument 'z'"),
        ({}, "missing"),
        ([1.0], "Point must be a JSON object"),
        ("x", "Point must be a JSON object"),
    ],
)
def test_another_document_is_refused(document: Any, problem: str) -> None:
    with pytest.raises((ValueError, TypeError), match=problem):
        from_document(Point, document)


def test_a_tuple_of_mixed_types_is_refused() -> None:
    @dataclass
    class Mixed:
        pair: tuple[int, str]

    with pytest.raises(TypeError, match="NamedTuple"):
        fields_of(Mixed)
    with pytest.raises(TypeError, match="neither"):
        fields_of(int)
