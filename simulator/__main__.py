"""Simulate a scenario: `python -m simulator SCENARIO.toml [POLICY]` prints the figures as JSON."""

import sys

from simulator.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
