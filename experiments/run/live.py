"""Runs a cell on processes of this machine, in real time: the same file and the same requests as in virtual time."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import psutil
import uvloop

from experiments.figures.outcome_table import RecordSink
from experiments.plan.cell import Cell, CellResult, PlannedCell, plan
from experiments.run.live_faults import play_faults, restart_links
from experiments.run.live_system import LiveSystem, live_system
from experiments.run.simulated import Progress
from loadgen.clips import find_file
from loadgen.pacing import LoadRun
from loadgen.replay import prepare
from skyshore.adapters.redis_store import RedisStore
from skyshore.adapters.tokenizer import Tokenizer
from skyshore.catalogue.store import clip, ready
from skyshore.catalogue.table import ENTRIES
from skyshore.domain.node import NodeStatus
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.placement import DecisionRecord
from skyshore.engines.emulated.answer import CHARACTERS_PER_TOKEN
from skyshore.report.figures import FigureTally
from skyshore.report.load_audit import Verdict, audit_load
from skyshore.report.request_record import RequestRecord

START_DELAY_S = 1.5
"""Time between starting the clocks and the first request. Links and client have agreed on time 0 by then."""
SAMPLE_S = 0.5
LATE_S = 5.0
"""How long to wait for outcomes and decisions, which reach the store after the client has its answer."""
OUTCOMES_AT_ONCE = 1000
MOST_DECISIONS = 20_000


@dataclass(slots=True)
class Watched:
    """What the system reported while the schedule was played."""

    outcomes: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    """By task, segments under the task of their clip."""
    decisions: list[DecisionRecord] = field(default_factory=list)
    """Newest first."""
    fleet_joules: float = 0.0
    """Of all nodes: the power they reported, over time."""
    machine_busy: float = 0.0
    """Share of this machine's processors in use, by any process."""


def run_live(
    cell: Cell,
    *,
    on_record: RecordSink | None = None,
    on_decision: Callable[[DecisionRecord], None] | None = None,
    event_log: Path | None = None,
    progress: Progress | None = None,
) -> CellResult:
    """Start the system, play the cell's schedule, collect the outcomes, stop; `on_record` gets every request.

    `on_decision` gets the decisions first; the state store keeps the newest 20,000.

    `event_log` is where to save the scheduler's events. A run that could not keep its schedule says so in its
    notes, with `Verdict.INVALID` as first word.

    Raises:
        SkyshoreError: the scenario cannot be used, or the system did not come up.
        OSError: a file cannot be read.
    """
    planned, started_s = plan(cell), time.perf_counter()
    with live_system(cell.scenario.absolute(), cell.policy, cell.seed, keep_event_log=event_log) as system:
        run = _prepared(planned, system)
        with _no_collection():
            watched = uvloop.run(_play(run, planned, system, progress))
    if on_decision is not None:
        names = {record.outcome.task_id: record.request_id for record in run.records() if record.outcome.task_id}
        for decision in reversed(watched.decisions):
            task_id = decision.task_id.partition("-")[0]
            on_decision(replace(decision, task_id=names.get(task_id, decision.task_id)))
    return _result(planned, run, watched, on_record, time.perf_counter() - started_s)


def _prepared(planned: PlannedCell, system: LiveSystem) -> LoadRun:
    """Prompts have exactly the scheduled length, in tokens of the engines that answer them."""
    real = [table for table in planned.scenario.nodes if table.engine == "onnx"]
    names = [model.partition(":")[0] for table in real for model in table.models]
    known = next((name for name in names if name in ENTRIES and ENTRIES[name].kind == "llm"), "")
    tokenizer = Tokenizer.open(ready(known)) if known else None
    return prepare(
        planned.schedule,
        system.gateway_url,
        _find_clip,
        count_tokens=(lambda text: len(tokenizer.encode(text))) if tokenizer else None,
        letters_per_token=0 if tokenizer else CHARACTERS_PER_TOKEN,
    )


def _find_clip(name: str) -> Path:
    return clip(name) if name in ENTRIES else find_file(name)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Objects made so far live to the end: collecting garbage among them again would make the client late."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _play(run: LoadRun, planned: PlannedCell, system: LiveSystem, progress: Progress | None) -> Watched:
    loop, watched = asyncio.get_running_loop(), Watched()
    store = RedisStore(system.redis_url)
    watching = asyncio.create_task(_watch(store, watched))
    zero_s = loop.time() + START_DELAY_S
    faults = asyncio.create_task(play_faults(system.control_socket, planned.scenario.faults, zero_s))
    try:
        await asyncio.to_thread(restart_links, system.links_url, zero_s - loop.time())
        psutil.cpu_percent()
        playing = asyncio.create_task(run.play(zero_s - loop.time()))
        while not playing.done():
            await asyncio.wait({playing}, timeout=SAMPLE_S)
            done = min(1.0, max(0.0, run.progress().now_s) / planned.schedule.duration_s)
            if progress is not None and not progress(done):
                run.stop()
            if faults.done():
                faults.result()
        await playing
        watched.machine_busy = psutil.cpu_percent() / 100
        await _await_the_rest(run.records(), store, watched)
    finally:
        for task in (watching, faults):
            task.cancel()
        await asyncio.wait([watching, faults])
        await store.close()
    return watched


async def _watch(store: RedisStore, watched: Watched) -> None:
    """Collect outcomes and add up the power of the nodes, until cancelled."""
    cursor, before_s = "0", time.monotonic()
    while True:
        cursor, outcomes = await store.read_outcomes(cursor, OUTCOMES_AT_ONCE, block_s=SAMPLE_S)
        for outcome in outcomes:
            watched.outcomes[outcome.task_id.partition("-")[0]].append(outcome)
        now_s = time.monotonic()
        if now_s - before_s >= SAMPLE_S:
            reports = await store.nodes()
            watched.fleet_joules += _watts([status for _, status in reports]) * (now_s - before_s)
            before_s = now_s


def _watts(statuses: Sequence[NodeStatus]) -> float:
    return sum(status.power_watts for status in statuses)


async def _await_the_rest(records: Sequence[RequestRecord], store: RedisStore, watched: Watched) -> None:
    """Outcomes and decisions reach the store in batches, the last of them after the client has its answer."""
    expected = {record.outcome.task_id for record in records if record.answered}
    end_s = time.monotonic() + LATE_S
    while True:
        watched.decisions = await store.decisions(MOST_DECISIONS)
        decided = {decision.task_id.partition("-")[0] for decision in watched.decisions}
        decisions_missing = len(watched.decisions) < MOST_DECISIONS and not expected <= decided
        if time.monotonic() >= end_s or not (decisions_missing or expected - watched.outcomes.keys()):
            return
        await asyncio.sleep(0.05)


def _result(
    planned: PlannedCell, run: LoadRun, watched: Watched, on_record: RecordSink | None, wall_s: float
) -> CellResult:
    schedule, records = planned.schedule, run.records()
    tiers = {node_id: str(node.tier) for node in planned.scenario.nodes for node_id in node.ids}
    tally = FigureTally()
    for record in records:
        outcome = _as_seen(record, _merged(record, watched.outcomes.get(record.outcome.task_id, ())))
        full = replace(record, outcome=outcome, tier=tiers.get(outcome.node_id, ""), unsplit_joules=0.0)
        tally(full)
        if on_record is not None:
            on_record(full)
    complete = run.stopped_at_s is None
    last_s = max((record.t_done_s or 0.0 for record in records), default=0.0)
    duration_s = max(schedule.duration_s, last_s) if complete else max(run.stopped_at_s or 0.0, 1e-3)
    emulated = all(table.engine == "emulated" for table in planned.scenario.nodes)
    return CellResult(
        cell=planned.cell,
        figures=tally.figures(duration_s, fleet_joules=watched.fleet_joules),
        by_class=tally.by_class(duration_s),
        statuses=tally.statuses,
        energy_sources=tally.energy_sources,
        provenance="emulated" if emulated else "measured",
        schedule_sha256=schedule.sha256,
        decisions_sha256="",
        complete=complete,
        duration_s=duration_s,
        wall_s=wall_s,
        notes=tuple(_notes(records, duration_s, run.client_cpu_share, watched)),
    )


def _as_seen(record: RequestRecord, outcome: Outcome) -> Outcome:
    """The gateway's outcome, with the end and the latencies that the client saw."""
    seen, worker = record.outcome, outcome.worker
    return replace(
        outcome,
        **{name: getattr(seen, name) for name in ("status", "finished_at_s", "latency_s", "deadline_s", "ttft_s")},
        worker=replace(
            worker,
            output_tokens=worker.output_tokens or seen.worker.output_tokens,
            frames=worker.frames or seen.worker.frames,
        ),
    )


def _merged(record: RequestRecord, outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of the last attempt; the segments of a clip are added up into one outcome."""
    done = [outcome for outcome in outcomes if outcome.status is OutcomeStatus.OK] or list(outcomes[-1:])
    if not done:
        return replace(record.outcome, node_id="", worker=WorkerOutcome())
    if len(done) == 1:
        return done[0]
    workers = [outcome.worker for outcome in done]
    summed = [each.name for each in fields(WorkerOutcome) if each.name not in ("queue_s", "energy_source")]
    worker = replace(
        workers[-1],
        **{name: sum(getattr(worker, name) for worker in workers) for name in summed},
        queue_s=max(worker.queue_s for worker in workers),
    )
    return replace(
        done[-1],
        up_bytes=sum(outcome.up_bytes for outcome in done),
        down_bytes=sum(outcome.down_bytes for outcome in done),
        transmission_joules=sum(outcome.transmission_joules for outcome in done),
        quality=sum(outcome.quality for outcome in done) / len(done),
        worker=worker,
    )


def _notes(
    records: Sequence[RequestRecord], duration_s: float, client_cpu_share: float, watched: Watched
) -> Iterator[str]:
    audit = audit_load(records, duration_s, client_cpu_share)
    if audit.verdict is not Verdict.VALID:
        worst = [each for each in audit.findings if each.verdict is not Verdict.VALID]
        found = "; ".join(f"{each.check} {each.value:.3g}, valid up to {each.valid_to:.3g}" for each in worst)
        yield f"{audit.verdict}: the schedule was not kept: {found}"
    lost = sum(
        record.status is OutcomeStatus.OK and record.outcome.task_id not in watched.outcomes for record in records
    )
    if lost:
        yield f"{Verdict.INVALID}: {lost} outcomes did not arrive"
    yield f"machine {100 * watched.machine_busy:.0f} % busy, client {100 * client_cpu_share:.0f} % of a core"
