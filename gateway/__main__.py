"""Run the gateway: `python -m gateway`."""

import sys

from gateway.serve import serve
from gateway.settings import GatewaySettings
from skyshore.runtime.process import run_process

if __name__ == "__main__":
    sys.exit(run_process(lambda _: "gateway", GatewaySettings, serve))
