"""Run the profiler: `python -m services.profiler`."""

import sys

from services.profiler.app import serve
from services.profiler.settings import ProfilerSettings
from skyshore.runtime.process import run_process

if __name__ == "__main__":
    sys.exit(run_process(lambda _: "profiler", ProfilerSettings, serve))
