"""Run a cloud node: `python -m cloud_node`. Every setting is an environment variable, see `settings`."""

import sys

from cloud_node.app import STARTERS
from cloud_node.settings import CloudNodeSettings
from skyshore.domain.node import Tier
from skyshore.worker.process import main

if __name__ == "__main__":
    sys.exit(main(CloudNodeSettings, Tier.CLOUD, STARTERS))
