"""The schedule of a scenario."""

from __future__ import annotations

from pathlib import Path

from skyshore.scenario import InvalidScenario, Scenario
from skyshore.scenario_workload import make_schedule
from skyshore.workload.schedule import Schedule, from_lines


def schedule_of(scenario: Scenario, folder: Path) -> Schedule:
    """The schedule file a scenario names, or the one its sources make."""
    name = scenario.workload.schedule
    if not name:
        return make_schedule(scenario)
    try:
        with (folder / name).open(encoding="utf-8") as lines:
            return from_lines(lines)
    except OSError as error:
        raise InvalidScenario(f"workload.schedule: {error}; make it with `skyshore traces make`") from error
