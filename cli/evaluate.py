"""`skyshore evaluate`: what a policy would have achieved on the logged decisions of another policy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console

from cli.render import show_table
from skyshore.domain.errors import InvalidTask
from skyshore.policies.protocol import REFUSED, Arms, Context
from skyshore.policies.registry import create_policy
from skyshore.report.off_policy import (
    Estimated,
    Floats,
    Logged,
    cross_fitted,
    doubly_robust,
    ips,
    require_support,
    snips,
)
from skyshore.report.tables import Table
from skyshore.scheduling.logged_context import decode_context

FIGURES = {"attainment": "met_deadline", "joules_per_request": "joules"}
"""Figure → column of the log."""
OWN_STREAM = 815
"""Separates the random draws of the evaluated policy from those of the logging policy, for every seed."""
NEEDED = ("task_id", "decided_at_s", "service_class", "chosen", "propensity", "arm_ids", "context", *FIGURES.values())


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of an evaluation."""

    policy: str
    rows: int
    matches: int
    effective_samples: float
    logged_by: tuple[str, ...]
    estimates: Mapping[str, Mapping[str, Estimated]]
    """By figure, then by estimator."""
    logged: Mapping[str, float]
    """What the logging policy achieved."""


def run_evaluate(policy: str, log: Path, seed: int, *, as_json: bool) -> None:
    """Evaluate and print.

    Raises:
        InvalidTask: no decision log, or one that cannot answer.
        NotFound: no such policy.
        OSError: the file cannot be read.
    """
    found = evaluate(policy, log, seed)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    rows = []
    for figure, estimates in found.estimates.items():
        for name, estimated in estimates.items():
            interval = f"{estimated.low:.4g} to {estimated.high:.4g}"
            rows.append((figure, name, f"{estimated.value:.4g}", interval, f"{found.logged[figure]:.4g}"))
    title = f"{policy} on {found.rows} decisions of {', '.join(found.logged_by)}"
    note = (
        f"{found.matches} choices are the same; effective sample size {found.effective_samples:.0f}. The policy starts "
        "with nothing learned, and what it would have changed for later tasks is not seen."
    )
    columns = ("figure", "estimator", "value", "95 % interval", "as logged")
    show_table(Console(), Table(title, columns, tuple(rows), note))


def evaluate(policy: str, log: Path, seed: int) -> Evaluation:
    """Let `policy` decide on every logged context, and weight its choices. Raises as `run_evaluate`."""
    judge = create_policy(policy, np.random.default_rng([seed, OWN_STREAM]))
    matches, propensity, of_logged, of_chosen, names = [], [], [], [], set()
    outcomes: dict[str, list[float]] = {figure: [] for figure in FIGURES}
    for row in _rows(log):
        context, arms = decode_context(
            row["context"], row["arm_ids"], row["task_id"], row["service_class"], row["decided_at_s"]
        )
        logged = row["arm_ids"].index(row["chosen"]) if row["chosen"] else REFUSED
        chosen = judge.select(context, arms).index
        matches.append(chosen == logged)
        propensity.append(row["propensity"])
        of_logged.append(_features(context, arms, logged))
        of_chosen.append(_features(context, arms, chosen))
        names.add(row["policy"])
        for figure, column in FIGURES.items():
            outcomes[figure].append(float(row[column]))
    compared = Logged(np.array(propensity, dtype=np.float64), np.array(matches, dtype=np.bool_))
    require_support(compared)
    measured = {figure: np.array(values) for figure, values in outcomes.items()}
    return Evaluation(
        policy,
        len(matches),
        int(compared.matches.sum()),
        compared.effective_samples,
        tuple(sorted(names)),
        {name: _estimates(compared, r, np.array(of_logged), np.array(of_chosen)) for name, r in measured.items()},
        {name: float(r.mean()) for name, r in measured.items()},
    )


def _estimates(logged: Logged, outcome: Floats, of_logged: Floats, of_chosen: Floats) -> dict[str, Estimated]:
    modelled = cross_fitted(of_logged, of_chosen, outcome)
    return {
        "ips": ips(logged, outcome),
        "snips": snips(logged, outcome),
        "dr": doubly_robust(logged, outcome, *modelled),
    }


def _features(context: Context, arms: Arms, index: int) -> list[float]:
    """Features of the outcome model of the doubly robust estimate."""
    if index == REFUSED:
        return [0.0] * 6 + [1.0]
    arm, left_s = arms.estimate(index), max(context.remaining_s, 1e-3)
    late = float(arm.latency_s > left_s)
    return [
        min(arm.latency_s / left_s, 3.0),
        late,
        arm.joules,
        arm.load / arm.slots,
        arm.queue_s / left_s,
        arm.is_cloud,
        0,
    ]


def _rows(log: Path) -> Iterator[dict[str, Any]]:
    """Decisions that had a choice and whose outcome is known."""
    try:
        file = parquet.ParquetFile(log)
    except pa.ArrowInvalid as error:
        raise InvalidTask(f"{log} is not a Parquet file: {error}", param="on") from error
    missing = [name for name in NEEDED if name not in file.schema_arrow.names]
    if missing:
        raise InvalidTask(
            f"{log} lacks {', '.join(missing)}; make it with `skyshore decisions export`, or `skyshore compare` with "
            "--decisions",
            param="on",
        )
    for batch in file.iter_batches(columns=[*NEEDED, "policy"]):
        for row in batch.to_pylist():
            if row["context"] and all(row[column] is not None for column in FIGURES.values()):
                yield row
