"""Structured logs: one line per event, with its process and, where known, its task_id."""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog

from skyshore.runtime import telemetry


class SafeStream:
    """A text stream whose writes never fail: a full disk, a closed pipe or no stream at all must end no process."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop the text and count it."""
        try:
            if self._stream is not None:
                self._stream.write(text)
        except (OSError, ValueError):  # ValueError: the stream is closed
            telemetry.LOG_WRITES_LOST.inc()
        return len(text)

    def flush(self) -> None:
        """Flush, if the stream still takes it."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError):
            telemetry.LOG_WRITES_LOST.inc()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Its file descriptor. Raises OSError, as a stream without one does."""
        if self._stream is None:
            raise OSError("no stream")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        """Its encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"


def configure(process: str, level: str = "info", *, as_json: bool = True) -> None:
    """Set up logging once, in `__main__`. Lines go to stderr, as JSON or as coloured text."""
    number = logging.getLevelNamesMapping()[level.upper()]
    stream = SafeStream(sys.stderr)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, stream)),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    # Show the log lines of libraries that use the standard module.
    form = f"{process} %(name)s %(message)s"
    logging.basicConfig(level=max(number, logging.WARNING), stream=cast(TextIO, stream), format=form)
