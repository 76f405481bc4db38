"""A scenario file describes a whole experiment. This package reads it and turns it into what each part of it needs."""

from skyshore.scenario.reader import InvalidScenario, read_scenario
from skyshore.scenario.schema import Scenario

__all__ = ["InvalidScenario", "Scenario", "read_scenario"]
