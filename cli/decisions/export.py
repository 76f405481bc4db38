"""`skyshore decisions export`: writes the decision log of a running system as Parquet, with the outcomes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from cli.render import say
from experiments.figures.decision_table import DecisionWriter
from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.errors import NodeUnavailable
from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.domain.placement import DecisionRecord
from skyshore.domain.task import TaskKind
from skyshore.ports import StateStore
from skyshore.report.request_record import RequestRecord

OUTCOMES_PER_READ = 5000
MAX_DECISIONS = 1_000_000
"""More decisions than any store keeps."""


def run_export(redis_url: str, out: Path, *, as_json: bool) -> None:
    """Write `out`, and print the number of decisions.

    Raises:
        NodeUnavailable: no system runs, or its store does not answer.
        OSError: the file cannot be written.
    """
    if not redis_url:
        raise NodeUnavailable("no system runs here; start one with `skyshore up`, or name a store with --redis-url")
    decisions, outcomes = asyncio.run(_read(redis_url))
    known = write_decisions(out, decisions, outcomes)
    if as_json:
        print(json.dumps({"file": str(out), "decisions": len(decisions), "with_outcome": known}))
    else:
        say(Console(), f"{out}: {len(decisions)} decisions, {known} with their outcome")


def write_decisions(out: Path, decisions: Sequence[DecisionRecord], outcomes: Iterable[Outcome]) -> int:
    """Write decisions, oldest first, as `compare --decisions` does. Returns how many have an outcome.

    A rejection is its own outcome. The store may have dropped the outcome of an old decision.
    """
    of_attempt = {(outcome.task_id, outcome.arm_id): outcome for outcome in outcomes}
    known = 0
    with DecisionWriter(out) as writer:
        for record in decisions:
            writer.decided(record)
            outcome = of_attempt.get((record.task_id, record.chosen)) or _refusal(record)
            if outcome is not None:
                writer.ended(_row(record, outcome))
                known += 1
    return known


async def _read(redis_url: str) -> tuple[list[DecisionRecord], list[Outcome]]:
    store = RedisStore(redis_url)
    try:
        decisions = await store.decisions(MAX_DECISIONS)
        return decisions[::-1], await _outcomes(store)
    finally:
        await store.close()


async def _outcomes(store: StateStore) -> list[Outcome]:
    cursor, found = "0", list[Outcome]()
    while True:
        cursor, more = await store.read_outcomes(cursor, OUTCOMES_PER_READ, block_s=0.01)
        if not more:
            return found
        found += more


def _refusal(record: DecisionRecord) -> Outcome | None:
    if record.chosen:
        return None
    status = OutcomeStatus.REJECTED
    return Outcome(record.task_id, "", "", status, record.decided_at_s, latency_s=0.0, deadline_s=0.0)


def _row(record: DecisionRecord, outcome: Outcome) -> RequestRecord:
    kind, deadline_s, min_quality = TaskKind.LLM, outcome.deadline_s, 0.0
    if record.context:
        asked = json.loads(record.context)["task"]
        kind, deadline_s, min_quality = TaskKind(asked[0]), asked[1], asked[2]
    return RequestRecord(
        request_id=record.task_id,
        kind=kind,
        service_class=record.service_class,
        origin="",
        t_intended_s=record.decided_at_s,
        deadline_s=deadline_s,
        min_quality=min_quality,
        outcome=outcome,
    )
