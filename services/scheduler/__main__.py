"""Run the scheduler: `python -m services.scheduler`."""

import sys

from services.scheduler.app import serve
from services.scheduler.settings import SchedulerSettings
from skyshore.runtime.process import run_process

if __name__ == "__main__":
    sys.exit(run_process(lambda _: "scheduler", SchedulerSettings, serve))
