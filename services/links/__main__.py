"""Run the link emulator: `python -m services.links`."""

import sys

from services.links.app import serve
from services.links.settings import LinksSettings
from skyshore.domain.errors import SkyshoreError
from skyshore.runtime import logs
from skyshore.runtime.serve import run

if __name__ == "__main__":
    settings = LinksSettings()
    logs.configure("links", settings.log_level, as_json=settings.log_json)
    try:
        run(serve(settings))
    except (SkyshoreError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
