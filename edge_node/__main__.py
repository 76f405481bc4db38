"""Run an edge node: `python -m edge_node`. Every setting is an environment variable, see `settings`."""

import sys

from edge_node.app import STARTERS
from edge_node.settings import EdgeNodeSettings
from skyshore.domain.node import Tier
from skyshore.worker.process import main

if __name__ == "__main__":
    sys.exit(main(EdgeNodeSettings, Tier.EDGE, STARTERS))
