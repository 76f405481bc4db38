"""From the sources of a scenario to its schedule. Seeded, so that replay and simulation get the same requests."""

from __future__ import annotations

import numpy as np

from skyshore.domain.task import ServiceClass
from skyshore.scenario.schema import CameraTable, LlmTable, Scenario
from skyshore.workload import arrival_processes as arrivals
from skyshore.workload.arrival import Arrival
from skyshore.workload.cameras import CameraSpec, camera_arrivals
from skyshore.workload.mix import LlmDemand, llm_arrivals
from skyshore.workload.schedule import Schedule, assemble


def make_schedule(scenario: Scenario) -> Schedule:
    """Draw the arrivals of every source. Each source has its own random generator, so that a new one changes no other.

    Raises:
        ValueError: the scenario names a schedule file, which must be read instead.
    """
    if scenario.workload.schedule:
        raise ValueError(f"scenario '{scenario.name}' names a schedule file: {scenario.workload.schedule}")
    classes, streams = scenario.service_classes, []
    for i, llm in enumerate(scenario.workload.llm):
        rng = np.random.default_rng([scenario.seed, 1, i])
        streams.append(_llm(llm, classes[llm.service_class], scenario.duration_s, rng))
    for i, table in enumerate(scenario.workload.cameras):
        for number in range(table.count):
            rng = np.random.default_rng([scenario.seed, 2, i, number])
            camera = _camera(table, classes[table.service_class], f"camera-{i + 1}-{number + 1}")
            streams.append(camera_arrivals(camera, scenario.duration_s, rng))
    provenance = [f"scenario {scenario.name}, seed {scenario.seed}"]
    return assemble(streams, duration_s=scenario.duration_s, seed=scenario.seed, provenance=provenance)


def _llm(table: LlmTable, demands: ServiceClass, seconds: float, rng: np.random.Generator) -> list[Arrival]:
    demand = LlmDemand(
        prompt_tokens=table.prompt_tokens,
        output_tokens=table.output_tokens,
        length_cv=table.length_cv,
        service_class=demands.name,
        deadline_s=demands.deadline_s,
        deadline_range_s=table.deadline_range_s,
        min_quality=demands.min_quality,
        origin=table.origin,
    )
    return llm_arrivals(_times(table, seconds, rng), demand, rng)


def _times(table: LlmTable, seconds: float, rng: np.random.Generator) -> arrivals.Times:
    match table.arrivals:
        case "poisson":
            return arrivals.poisson(table.rate_per_s, seconds, rng)
        case "gamma":
            return arrivals.gamma(table.rate_per_s, table.cv, seconds, rng)
        case "on_off":
            return arrivals.on_off(table.rate_per_s, table.on_s, table.off_s, seconds, rng)
        case "diurnal":
            return arrivals.diurnal(table.rate_per_s, table.amplitude, table.period_s, seconds, rng)


def _camera(table: CameraTable, demands: ServiceClass, name: str) -> CameraSpec:
    return CameraSpec(
        name=name,
        clip=table.clip,
        fps=table.fps,
        segment_s=table.segment_s,
        deadline_s=demands.deadline_s,
        origin=table.origin,
        service_class=demands.name,
        kind=table.kind,
        min_quality=demands.min_quality,
        objects=(table.objects_per_frame,),
    )
