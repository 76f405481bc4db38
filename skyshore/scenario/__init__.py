"""Scenario files: their schema and reader, and what the other packages take from them."""

from skyshore.scenario.reader import InvalidScenario, read_scenario
from skyshore.scenario.schema import Scenario

__all__ = ["InvalidScenario", "Scenario", "read_scenario"]
