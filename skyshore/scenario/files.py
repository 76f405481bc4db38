"""Reads the files that a scenario names: its schedule, calibration, node profiles and link traces."""

from __future__ import annotations

import json
from pathlib import Path

from skyshore.domain.errors import NotFound
from skyshore.links.capacity import Trace
from skyshore.links.trace_files import TraceError, parse_trace
from skyshore.nodemodel.calibration import Calibration, calibration_from_document
from skyshore.nodemodel.document import ProfileError, profile_from_document
from skyshore.nodemodel.hardware import HARDWARE, INSTANT, modelled_profile
from skyshore.nodemodel.speed import NodeProfile
from skyshore.scenario.reader import InvalidScenario
from skyshore.scenario.schema import NodeTable, Scenario
from skyshore.scenario.workload import make_schedule
from skyshore.workload.schedule import InvalidSchedule, Schedule, from_lines


def read_schedule(path: Path) -> Schedule:
    """The schedule in a file.

    Raises:
        NotFound: no such file.
        InvalidSchedule: the file is damaged; the message names the line.
        OSError: the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return from_lines(lines)
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}; make one with `skyshore traces make {path}`") from error
    except UnicodeDecodeError as error:
        raise InvalidSchedule(f"{path} is not a text file, so it is not a schedule") from error
    except InvalidSchedule as error:
        raise InvalidSchedule(f"{path}: {error.message}") from error


def schedule_of(scenario: Scenario, folder: Path) -> Schedule:
    """The schedule file that a scenario names, or the schedule that its sources make.

    Raises:
        InvalidScenario: the schedule file cannot be read.
        InvalidSchedule: the schedule file is damaged; the message names the line.
    """
    name = scenario.workload.schedule
    if not name:
        return make_schedule(scenario)
    try:
        return read_schedule(folder / name)
    except NotFound as error:
        raise InvalidScenario(f"workload.schedule: {error.message}") from error
    except OSError as error:
        raise InvalidScenario(f"workload.schedule: {error}") from error


def calibration_of(scenario: Scenario, folder: Path) -> Calibration:
    """The calibration file of a scenario; empty if it names none. Raises InvalidScenario."""
    if not scenario.calibration:
        return Calibration("")
    try:
        return calibration_from_document(json.loads((folder / scenario.calibration).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InvalidScenario(f"calibration '{scenario.calibration}': {error}") from error


def profile_of(table: NodeTable, folder: Path) -> NodeProfile:
    """The profile of a node. Raises InvalidScenario for unknown hardware, or a file that cannot be used."""
    try:
        if table.profile in HARDWARE or table.profile == INSTANT:
            profile = modelled_profile(table.profile, table.models)
        else:
            text = (folder / table.profile).read_text(encoding="utf-8")
            profile = profile_from_document(json.loads(text))
    except (OSError, ProfileError, json.JSONDecodeError) as error:
        known = ", ".join([INSTANT, *HARDWARE])
        raise InvalidScenario(f"node '{table.id}': {error}; give a profile file, or one of {known}") from error
    return profile.slowed(table.slowdown).time_scaled(table.time_scale)


def read_trace(folder: Path, name: str) -> Trace:
    """The capacity of a link over time. Raises InvalidScenario for a file that cannot be used."""
    try:
        return parse_trace((folder / name).read_text(encoding="utf-8"))
    except (OSError, TraceError) as error:
        raise InvalidScenario(f"trace '{name}': {error}") from error
