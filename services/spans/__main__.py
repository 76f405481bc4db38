"""Turn outcomes into spans: `python -m services.spans`."""

import sys

from services.spans.app import serve
from services.spans.settings import SpansSettings
from skyshore.runtime.process import run_process

if __name__ == "__main__":
    sys.exit(run_process(lambda _: "spans", SpansSettings, serve))
