"""python -m services.profiler."""

from __future__ import annotations

import sys

import structlog

from services.profiler.app import serve
from services.profiler.settings import ProfilerSettings
from skyshore.domain.errors import SkyshoreError
from skyshore.runtime import logs
from skyshore.runtime.serve import run


def main() -> None:
    """Read the settings, serve, and leave with a reason if that cannot be."""
    settings = ProfilerSettings()
    logs.configure("profiler", settings.log_level, as_json=settings.log_json)
    try:
        run(serve(settings))
    except* (SkyshoreError, OSError) as errors:
        for error in errors.exceptions:
            structlog.get_logger().error("cannot serve", why=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
