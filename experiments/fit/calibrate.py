"""Fits node models and overheads to the requests of a live run."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.figures.outcome_table import read_records
from experiments.fit.llm import Fitted, fit_engines
from experiments.plan.bundle import Bundle
from experiments.plan.cell import Driver
from experiments.plan.job import OUTCOMES
from skyshore.domain.errors import InvalidTask
from skyshore.domain.task import TaskKind
from skyshore.engines.llm.settings import LlmEngineSettings
from skyshore.links.settings import LinkSettings
from skyshore.nodemodel.calibration import Calibration, Overheads
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed
from skyshore.report.request_record import RequestRecord
from skyshore.scenario import Scenario
from skyshore.scenario.files import profile_of
from skyshore.scenario.links import link_settings

LEAST_ANSWERS = 10
"""Answers of one model on one node that a fit needs; with fewer, the stated values stay."""
ENGINE = LlmEngineSettings(model_dir=Path())
"""Engine settings of a node."""
APART_S = 1e6
"""Time between the requests of two runs; longer than any run."""
SPREAD = tuple((np.arange(50) + 0.5) / 50)
"""Quantiles that describe the spread of an overhead, up to the 99th percentile."""


def calibrate(rows: Iterable[RequestRecord], scenario: Scenario, folder: Path, source: str) -> Calibration:
    """Fit every real node with enough answers; the others keep the values of the scenario. Files lie in `folder`.

    The profile of an emulated node is exact: only the overheads around it are fitted.

    Raises:
        InvalidTask: nothing was answered.
        InvalidScenario: a profile of the scenario cannot be used.
    """
    answered = [row for row in rows if row.answered and row.outcome.node_id]
    if not answered:
        raise InvalidTask("the run holds no answers to learn from; calibrate a live run")
    stated = {
        node_id: _as_run(profile_of(table, folder), table.slots)
        for table in scenario.nodes
        if table.engine != "emulated"
        for node_id in table.ids
    }
    nodes, contention = fit_nodes(answered, stated, source)
    return Calibration(source, _overheads(answered, scenario), nodes, contention)


def _as_run(stated: NodeProfile, slots: int) -> NodeProfile:
    """The profile with the batching and queue settings that the engine of a real node has."""
    speeds = (
        replace(
            each,
            slots=slots,
            queue=ENGINE.queue_limit,
            stall_ratio=ENGINE.stall_ratio,
            chunk_tokens=ENGINE.prefill_chunk_tokens,
        )
        for each in stated.llm
    )
    return replace(stated, llm=tuple(speeds))


def _overheads(rows: Sequence[RequestRecord], scenario: Scenario) -> Overheads:
    left = []
    for row in rows:
        if row.ttft_s is not None:
            link = link_settings(scenario, row.outcome.node_id) or LinkSettings()
            rate = link.up.rate_bytes_per_s
            on_link_s = link.up.delay_s + link.down.delay_s + (0.0 if math.isinf(rate) else row.outcome.up_bytes / rate)
            left.append(
                max(0.0, row.ttft_s - row.outcome.gateway_s - row.worker.queue_s - row.worker.prefill_s - on_link_s)
            )
    gateway = [row.outcome.gateway_s for row in rows]
    if not left:
        return Overheads(gateway_s=float(np.median(gateway)), request_s=0.0)
    return Overheads(
        gateway_s=float(np.median(gateway)),
        request_s=float(np.median(left)),
        gateway_spread_s=tuple(float(each) for each in np.quantile(gateway, SPREAD)),
        request_spread_s=tuple(float(each) for each in np.quantile(left, SPREAD)),
    )


def fit_nodes(
    rows: Sequence[RequestRecord], stated: Mapping[str, NodeProfile], source: str
) -> tuple[dict[str, NodeProfile], float]:
    """Speeds and power of nodes of one machine from their answers, and their contention.

    Memory, slots, queues and batching stay as stated, and so do models with too few answers.
    """
    by_engine: defaultdict[tuple[str, str], list[RequestRecord]] = defaultdict(list)
    for row in rows:
        by_engine[row.outcome.node_id, _model(row)].append(row)
    speeds = {
        (node_id, speed.model): speed
        for node_id, profile in stated.items()
        for speed in profile.llm
        if len(_chats(by_engine[node_id, _name(speed)])) >= LEAST_ANSWERS
    }
    fitted = Fitted((), 0.0)
    if speeds:
        chats = [_chats(by_engine[node_id, _name(speed)]) for (node_id, _), speed in speeds.items()]
        fitted = fit_engines(chats, list(speeds.values()))
    found = dict(zip(speeds, fitted.speeds, strict=True))
    nodes = {}
    for node_id, profile in stated.items():
        own = [row for row in rows if row.outcome.node_id == node_id]
        busy_s = _union_s([_span(row) for row in own])
        nodes[node_id] = replace(
            profile,
            source=source,
            idle_watts=sum(row.worker.idle_joules for row in own) / busy_s if busy_s else profile.idle_watts,
            llm=tuple(
                _powered(found[node_id, speed.model], by_engine[node_id, _name(speed)], source)
                if (node_id, speed.model) in found
                else speed
                for speed in profile.llm
            ),
            video=tuple(_video(by_engine[node_id, speed.model], speed, source) for speed in profile.video),
        )
    return nodes, fitted.contention


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
    # Shift each run in time, so that requests of different runs never share a batch.
    rows = [
        replace(row, t_intended_s=row.t_intended_s + place * APART_S)
        for place, path in enumerate(files)
        for row in read_records(path)
    ]
    source = f"measured: calibrated on {bundle.experiment.inputs.parse().name} {bundle.experiment.inputs.sha256[:8]}"
    return calibrate(rows, bundle.experiment.inputs.parse(), bundle.scenario.parent, source)


def _chats(rows: Sequence[RequestRecord]) -> list[RequestRecord]:
    return [row for row in rows if row.kind is TaskKind.LLM]


def _powered(fitted: LlmSpeed, rows: Sequence[RequestRecord], source: str) -> LlmSpeed:
    chats = _chats(rows)
    busy_s = _union_s([_span(row) for row in chats])
    return replace(
        fitted,
        source=f"{source}, {len(chats)} answers",
        busy_watts=sum(row.worker.inference_joules for row in chats) / busy_s if busy_s else fitted.busy_watts,
    )


def _name(speed: LlmSpeed) -> str:
    return speed.model.partition(":")[0]


def _model(row: RequestRecord) -> str:
    """The model of `node/model:precision@size/…`, without its precision."""
    return row.outcome.arm_id.partition("/")[2].partition("@")[0].partition(":")[0]


def _video(rows: Sequence[RequestRecord], stated: VideoSpeed, source: str) -> VideoSpeed:
    """Time per frame only: segments are too similar to separate a fixed cost per segment."""
    frames = sum(row.worker.frames for row in rows)
    if len(rows) < LEAST_ANSWERS or not frames:
        return stated
    frame_s = float(np.median([row.worker.compute_s / row.worker.frames for row in rows if row.worker.frames]))
    return replace(stated, source=f"{source}, {len(rows)} segments", frame_s=frame_s, segment_s=0.0)


def _span(row: RequestRecord) -> tuple[float, float]:
    end = row.t_intended_s + row.latency_s
    return end - row.busy_s, end


def _union_s(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the time in which at least one span runs."""
    total, until = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
