"""Event logs as text, one JSON object per line; a fresh core replays them to the same decisions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from skyshore.codec.document import from_document, to_document
from skyshore.domain.errors import InvalidTask
from skyshore.domain.node import Node
from skyshore.scheduling import events
from skyshore.scheduling.actions import Dispatch
from skyshore.scheduling.core import CoreSettings, SchedulerCore

VERSION = 1
EVENTS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(events.Event)}


def encode_header(settings: CoreSettings) -> str:
    """First line of a log: the settings of the core."""
    return json.dumps({"log": VERSION, "settings": _document(settings)}, separators=(",", ":"))


class EventEncoder:
    """Encodes the events of one log, in order. A node's registration is written once, not at every heartbeat."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def encode(self, event: events.Event) -> str:
        """One line, without its end."""
        content = {"event": type(event).__name__} | _document(event)
        if isinstance(event, events.NodeReported):
            name = event.node.node_id
            if self._nodes.get(name) == event.node:
                content["node"] = name
            self._nodes[name] = event.node
        return json.dumps(content, separators=(",", ":"))


def encode_dispatch(action: Dispatch) -> str:
    """A decision as a golden line: task, arm, propensity."""
    placement = action.placement
    return json.dumps([placement.task_id, placement.arm.arm_id, round(placement.propensity, 9)])


def decode_log(lines: Iterable[str]) -> tuple[CoreSettings, Iterator[events.Event]]:
    """Settings and events of a log. Raises InvalidTask for something else."""
    rest = iter(lines)
    try:
        header = json.loads(next(rest, "{}"))
        if header["log"] != VERSION:
            raise InvalidTask(f"event log of version {header['log']}; this is version {VERSION}", param="log")
        return from_document(CoreSettings, header["settings"]), _events(rest)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidTask(f"not an event log: {error!r}", param="log") from error


def replay(lines: Iterable[str]) -> Iterator[Dispatch]:
    """The dispatches with which a fresh core answers a log."""
    settings, history = decode_log(lines)
    core = SchedulerCore(settings)
    for event in history:
        for action in core.handle(event):
            if isinstance(action, Dispatch):
                yield action


def _events(lines: Iterable[str]) -> Iterator[events.Event]:
    nodes: dict[str, Any] = {}
    for line in lines:
        try:
            content = json.loads(line)
            kind = EVENTS[content.pop("event")]
            if kind is events.NodeReported:
                if isinstance(content["node"], str):
                    content["node"] = nodes[content["node"]]
                nodes[content["node"]["node_id"]] = content["node"]
            yield from_document(kind, content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidTask(f"not an event: {line[:80]!r} ({error!r})", param="log") from error


def _document(value: Any) -> dict[str, Any]:
    return to_document(value, omit_defaults=True)  # most fields of a log have their defaults
