"""Structured logs: one line per event, with its process and, where known, its task_id."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(process: str, level: str = "info", *, as_json: bool = True) -> None:
    """Set up logging once, in `__main__`. Lines go to stderr, as JSON or as coloured text."""
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    # Show the log lines of libraries that use the standard module.
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, format=f"{process} %(name)s %(message)s")
