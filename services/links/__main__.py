"""Run the link emulator: `python -m services.links`."""

import sys

from services.links.app import serve
from services.links.settings import LinksSettings
from skyshore.runtime.process import run_process

if __name__ == "__main__":
    sys.exit(run_process(lambda _: "links", LinksSettings, serve))
