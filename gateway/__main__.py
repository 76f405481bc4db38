"""python -m gateway."""

from __future__ import annotations

import sys

import structlog

from gateway.serve import serve
from gateway.settings import GatewaySettings
from skyshore.domain.errors import SkyshoreError
from skyshore.runtime import logs
from skyshore.runtime.serve import run


def main() -> None:
    """Read the settings, serve, and leave with a reason if that cannot be."""
    settings = GatewaySettings()
    logs.configure("gateway", settings.log_level, as_json=settings.log_json)
    try:
        run(serve(settings))
    except (SkyshoreError, OSError) as error:
        structlog.get_logger().error("cannot serve", why=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
