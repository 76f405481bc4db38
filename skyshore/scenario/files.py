"""Reads the files that a scenario names: its schedule, calibration, node profiles and link traces."""

from __future__ import annotations

import json
from pathlib import Path

from skyshore.links.capacity import Trace
from skyshore.links.trace_files import TraceError, parse_trace
from skyshore.nodemodel.calibration import Calibration, calibration_from_document
from skyshore.nodemodel.document import ProfileError, profile_from_document
from skyshore.nodemodel.hardware import HARDWARE, INSTANT, modelled_profile
from skyshore.nodemodel.speed import NodeProfile
from skyshore.scenario.reader import InvalidScenario
from skyshore.scenario.schema import NodeTable, Scenario
from skyshore.scenario.workload import make_schedule
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


def calibration_of(scenario: Scenario, folder: Path) -> Calibration:
    """What a scenario says was fitted to live runs; empty if nothing was. Raises InvalidScenario."""
    if not scenario.calibration:
        return Calibration("")
    try:
        return calibration_from_document(json.loads((folder / scenario.calibration).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InvalidScenario(f"calibration '{scenario.calibration}': {error}") from error


def profile_of(table: NodeTable, folder: Path) -> NodeProfile:
    """What a scenario says of a node. Raises InvalidScenario for hardware or a file that cannot be used."""
    try:
        if table.profile in HARDWARE or table.profile == INSTANT:
            profile = modelled_profile(table.profile, table.models)
        else:
            text = (folder / table.profile).read_text(encoding="utf-8")
            profile = profile_from_document(json.loads(text))
    except (OSError, ProfileError, json.JSONDecodeError) as error:
        known = ", ".join([INSTANT, *HARDWARE])
        raise InvalidScenario(f"node '{table.id}': {error}; give a profile file, or one of {known}") from error
    return profile.slowed(table.slowdown).hurried(table.time_scale)


def read_trace(folder: Path, name: str) -> Trace:
    """A link's capacity over time. Raises InvalidScenario for a file that cannot be used."""
    try:
        return parse_trace((folder / name).read_text(encoding="utf-8"))
    except (OSError, TraceError) as error:
        raise InvalidScenario(f"trace '{name}': {error}") from error
