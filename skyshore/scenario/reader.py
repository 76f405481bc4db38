"""From TOML text to a checked `Scenario`. Every mistake is reported with its line, its field and what to do."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from skyshore.domain.errors import SkyshoreError
from skyshore.scenario.faults import FAULT_KINDS
from skyshore.scenario.schema import Scenario, closest


class InvalidScenario(SkyshoreError):
    """A scenario file that cannot be used; the message has one line per mistake."""

    code = "invalid_scenario"


Location: TypeAlias = tuple[str | int, ...]


def read_scenario(text: str, file: str = "scenario") -> Scenario:
    """Parse and check a scenario.

    Raises:
        InvalidScenario: one line per mistake: `file:line: field: what is wrong; what to do`.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = found[1] if found else str(text.count("\n") + 1)
        raise InvalidScenario(f"{file}:{line}: {error}; see https://toml.io for the syntax") from None
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        lines = dict(_lines(text))
        messages = [_message(detail, lines, file) for detail in error.errors(include_url=False)]
        raise InvalidScenario("\n".join(messages)) from None


def _message(detail: Any, lines: dict[Location, int], file: str) -> str:
    location: Location = tuple(detail["loc"])
    message = str(detail["msg"]).removeprefix("Value error, ")
    # A check across tables writes the location of the mistake in front of its message.
    if placed := re.match(r"([a-z_.0-9]+): ", message):
        location += tuple(int(word) if word.isdigit() else word for word in placed[1].split("."))
        message = message[placed.end() :]
    if detail["type"] == "extra_forbidden":
        message = f"unknown field{closest(str(location[-1]), _fields_at(location[:-1]))}"
    elif detail["type"] == "missing":
        message = "is missing; add it"
    elif detail["type"] == "union_tag_not_found":
        location, message = (*location, "kind"), f"is missing; there are {', '.join(FAULT_KINDS)}"
    elif detail["type"] == "union_tag_invalid":
        kind = detail["ctx"]["tag"]
        location, message = (*location, "kind"), f"unknown kind '{kind}'{closest(kind, list(FAULT_KINDS))}"
    elif detail["type"] not in ("value_error",):
        message = f"{message}, not {detail['input']!r}"
    location = tuple(word for i, word in enumerate(location) if not _is_kind(location, i))
    known = location
    while known and known not in lines:
        known = known[:-1]
    field = ".".join(str(word) for word in location) or "scenario"
    return f"{file}:{lines.get(known, 1)}: {field}: {message}"


def _is_kind(location: Location, i: int) -> bool:
    """Whether a word of a location is the kind of a fault, which pydantic adds after the index, and not a field."""
    return i == 2 and location[0] == "faults" and location[i] in FAULT_KINDS


def _fields_at(location: Location) -> list[str]:
    model: type[BaseModel] = Scenario
    for i, word in enumerate(location):
        if _is_kind(location, i):
            model = FAULT_KINDS[str(word)]
        elif isinstance(word, str) and word in model.model_fields:
            annotation = model.model_fields[word].annotation
            arguments = getattr(annotation, "__args__", (annotation,))
            model = next((a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel)), model)
    return list(model.model_fields)


def _lines(text: str) -> Iterator[tuple[Location, int]]:
    """The location of every table and key, and its line. Understands enough TOML for error messages."""
    table: Location = ()
    counts: dict[Location, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if heading := re.match(r"\s*\[(\[)?\s*([\w.\"-]+)\s*\]", line):
            table = _indexed(tuple(heading[2].replace('"', "").split(".")), counts, array=bool(heading[1]))
            yield table, number
        elif key := re.match(r"\s*([\w.\"-]+)\s*=(.*)", line):
            place = (*table, *key[1].replace('"', "").split("."))
            yield place, number
            for inner in re.finditer(r"[{,]\s*([\w-]+)\s*=", key[2]):
                yield (*place, inner[1]), number


def _indexed(names: tuple[str, ...], counts: dict[Location, int], *, array: bool) -> Location:
    """Add the index of the current element after every name that is an array of tables."""
    place: Location = ()
    for i, name in enumerate(names):
        place = (*place, name)
        if array and i == len(names) - 1:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place
