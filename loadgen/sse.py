"""Parses server-sent events from a byte stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `name` is `message` if the server gave no name."""

    name: str
    data: str


class EventParser:
    """Takes bytes in chunks of any size, returns whole events. Comments, ids and retry hints are dropped."""

    def __init__(self) -> None:
        self._rest = b""
        self._name, self._data = "", list[str]()

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Events that `data` completed."""
        text = self._rest + data
        # A lone CR at the end may be the first half of CRLF: leave it for the next bytes.
        held = text.endswith(b"\r")
        normal = (text[:-1] if held else text).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = normal.split(b"\n")
        self._rest = rest + (b"\r" if held else b"")
        return [event for line in lines if (event := self._line(line.decode(errors="replace")))]

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            event = ServerEvent(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None
