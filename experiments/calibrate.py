"""Fits node models and overheads to what a live run saw of its requests."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pyarrow import parquet

from experiments.bundle import Bundle
from experiments.cell import Driver
from experiments.fit_llm import fit_llm
from experiments.outcome_table import OutcomeRow
from experiments.work import OUTCOMES
from simulator.build import profile_of
from skyshore.domain.errors import InvalidTask
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.links.settings import LinkSettings
from skyshore.nodemodel.calibration import Calibration, Overheads
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed
from skyshore.scenario import Scenario
from skyshore.scenario_links import link_settings

LEAST_ANSWERS = 10
"""Of one model on one node: fewer tell too little, and the stated figures stay."""
APART_S = 1e6
"""Far longer than any run."""


def calibrate(rows: Iterable[OutcomeRow], scenario: Scenario, folder: Path, source: str) -> Calibration:
    """Fit every real node that answered enough; the others keep what the scenario states. Files lie in `folder`.

    An emulated node's profile is what it does: only the overheads around it are learned.

    Raises:
        InvalidTask: nothing was answered.
        InvalidScenario: a profile of the scenario cannot be used.
    """
    answered = [row for row in rows if row.status is OutcomeStatus.OK and row.latency_s is not None and row.node_id]
    if not answered:
        raise InvalidTask("the run holds no answers to learn from; calibrate a live run")
    nodes = {}
    for table in scenario.nodes:
        for node_id in table.ids if table.engine != "emulated" else ():
            own = [row for row in answered if row.node_id == node_id]
            stated = profile_of(table, folder)
            slotted = replace(stated, llm=tuple(replace(speed, slots=table.slots) for speed in stated.llm))
            nodes[node_id] = fit_node(own, slotted, source)
    return Calibration(source, _overheads(answered, scenario), nodes)


def _overheads(rows: Sequence[OutcomeRow], scenario: Scenario) -> Overheads:
    left = []
    for row in rows:
        if row.ttft_s is not None:
            link = link_settings(scenario, row.node_id) or LinkSettings()
            rate = link.up.rate_bytes_per_s
            on_link_s = link.up.delay_s + link.down.delay_s + (0.0 if math.isinf(rate) else row.up_bytes / rate)
            left.append(row.ttft_s - row.gateway_s - row.queue_s - row.prefill_s - on_link_s)
    request_s = max(0.0, float(np.median(left))) if left else 0.0
    return Overheads(gateway_s=float(np.median([row.gateway_s for row in rows])), request_s=request_s)


def fit_node(rows: Sequence[OutcomeRow], stated: NodeProfile, source: str) -> NodeProfile:
    """Speeds and power of one node from its answers; memory, slots and queues stay as stated."""
    by_model: defaultdict[str, list[OutcomeRow]] = defaultdict(list)
    for row in rows:
        by_model[_model(row)].append(row)
    busy_s = _union_s([_span(row) for row in rows])
    idle = sum(row.idle_joules for row in rows) / busy_s if busy_s else stated.idle_watts
    return replace(
        stated,
        source=source,
        idle_watts=idle,
        llm=tuple(_llm(by_model[speed.model.partition(":")[0]], speed, source) for speed in stated.llm),
        video=tuple(_video(by_model[speed.model], speed, source) for speed in stated.video),
    )


def calibrate_run(folder: Path) -> Calibration:
    """From the live cells of a run bundle, as `skyshore compare --driver live` leaves it.

    Raises:
        BadBundle: it is none.
        InvalidTask: it holds no rows of a live run.
    """
    bundle = Bundle.read(folder)
    jobs = [job for job in bundle.jobs() if job.cell.driver is Driver.LIVE]
    files = [path for job in jobs if (path := bundle.cell_folder(job.cell) / OUTCOMES).is_file()]
    if not files:
        raise InvalidTask(f"{folder} holds no rows of a live run; `skyshore compare SCENARIO --driver live` makes them")
    # Cells one after the other, so that requests of different runs never seem to share a batch.
    rows = [
        replace(row, t_intended_s=row.t_intended_s + place * APART_S)
        for place, path in enumerate(files)
        for row in read_outcomes(path)
    ]
    source = f"measured: calibrated on {bundle.experiment.inputs.parse().name} {bundle.experiment.inputs.sha256[:8]}"
    return calibrate(rows, bundle.experiment.inputs.parse(), bundle.scenario.parent, source)


def read_outcomes(path: Path) -> list[OutcomeRow]:
    """The rows of an `outcomes.parquet`."""
    return [
        OutcomeRow(**{**row, "kind": TaskKind(row["kind"]), "status": OutcomeStatus(row["status"])})
        for row in parquet.read_table(path).to_pylist()
    ]


def _llm(rows: Sequence[OutcomeRow], stated: LlmSpeed, source: str) -> LlmSpeed:
    rows = [row for row in rows if row.kind is TaskKind.LLM]
    if len(rows) < LEAST_ANSWERS:
        return stated
    busy_s = _union_s([_span(row) for row in rows])
    return replace(
        fit_llm(rows, stated),
        source=f"{source}, {len(rows)} answers",
        busy_watts=sum(row.inference_joules for row in rows) / busy_s if busy_s else stated.busy_watts,
    )


def _model(row: OutcomeRow) -> str:
    """The model of `node/model:precision@size/…`, without its precision."""
    return row.arm_id.partition("/")[2].partition("@")[0].partition(":")[0]


def _video(rows: Sequence[OutcomeRow], stated: VideoSpeed, source: str) -> VideoSpeed:
    """Time per frame only: segments are too alike to tell what is paid once."""
    frames = sum(row.frames for row in rows)
    if len(rows) < LEAST_ANSWERS or not frames:
        return stated
    frame_s = float(np.median([row.compute_s / row.frames for row in rows if row.frames]))
    return replace(stated, source=f"{source}, {len(rows)} segments", frame_s=frame_s, segment_s=0.0)


def _span(row: OutcomeRow) -> tuple[float, float]:
    end = row.t_intended_s + (row.latency_s or 0.0)
    return end - row.compute_s - row.prefill_s, end


def _union_s(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the time in which at least one span runs."""
    total, until = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
