"""Turns the JSON logs of the processes into readable lines: time, process, event, other fields."""

from __future__ import annotations

import json

from rich.console import Console
from rich.text import Text

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")
_LEVELS = {"debug": "dim", "warning": "yellow", "error": "bold red", "critical": "bold red"}
_HIDDEN = {"event", "level", "timestamp", "process", "exception"}


class LogView:
    """Prints lines of many processes to one console."""

    def __init__(self, console: Console, names: tuple[str, ...] = ()) -> None:
        self._console = console
        self._colour_of = dict(zip(names, _COLOURS * (len(names) // len(_COLOURS) + 1), strict=False))
        self._width = max((len(name) for name in names), default=8)

    def show(self, name: str, line: str) -> None:
        """Print one line of a process, JSON or not."""
        if line.strip():
            self._console.print(render(name, line, self._colour_of.get(name, "white"), self._width), soft_wrap=True)

    def say(self, message: str, style: str = "bold") -> None:
        """Print a message of the launcher."""
        self._console.print(Text.assemble((f"{'skyshore':>{self._width + 9}} ", "bold"), "│ ", (message, style)))


def render(name: str, line: str, colour: str, width: int) -> Text:
    """The text of one line."""
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or "event" not in entry:
        return Text.assemble((f"{name:>{width + 9}} ", colour), "│ ", (line.rstrip(), "dim"))
    time = str(entry.get("timestamp", ""))[11:19]
    style = _LEVELS.get(str(entry.get("level")), "")
    rest = " ".join(f"{key}={_value(value)}" for key, value in entry.items() if key not in _HIDDEN)
    text = Text.assemble((f"{time:8} ", "dim"), (f"{name:>{width}} ", colour), "│ ", (str(entry["event"]), style))
    if rest:
        text.append(" " + rest, "dim")
    if "exception" in entry:
        text.append("\n" + str(entry["exception"]), "red")
    return text


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
