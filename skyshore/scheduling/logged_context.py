"""The context of a decision as text in the decision log, so that another policy can be evaluated on it later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np

from skyshore.codec.document import from_document, to_document
from skyshore.domain.errors import InvalidTask
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.policies.protocol import ArmEstimate, Arms, ArmTable, Context, Floats

SIGNIFICANT_DIGITS = 6
"""Kept of every estimate."""
FIRST_NUMBER = ArmEstimate._fields.index("is_cloud")
_text = json.JSONEncoder(separators=(",", ":")).encode


def encode_context(context: Context, estimates: Sequence[ArmEstimate]) -> str:
    """One line: the task, its profile, and one row an arm in the order of the record's `arm_ids`."""
    task, profile = context.task, to_document(context.profile, omit_defaults=True)
    asked = [str(task.kind), task.deadline_s, task.min_quality, context.waited_s]
    rows = ",".join(f"[{_text(row.node_id)},{','.join(map(_short, row[FIRST_NUMBER:]))}]" for row in estimates)
    return f'{_text({"task": asked, "profile": profile})[:-1]},"arms":[{rows}]}}'


def decode_context(
    text: str, arm_ids: Sequence[str], task_id: str, service_class: str, now_s: float
) -> tuple[Context, Arms]:
    """What `encode_context` wrote. Raises InvalidTask for anything else."""
    try:
        content = json.loads(text)
        kind, deadline_s, min_quality, waited_s = content["task"]
        profile = from_document(TaskProfile, content["profile"])
        task = Task(task_id, TaskKind(kind), service_class, float(deadline_s), float(min_quality))
        node_ids = tuple(str(row[0]) for row in content["arms"])
        numbers = np.array([[np.inf if value is None else value for value in row[1:]] for row in content["arms"]]).T
        columns = dict(zip(ArmEstimate._fields[FIRST_NUMBER:], numbers, strict=True))
        arms = _arms(_table(task.kind, tuple(arm_ids), node_ids), columns)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidTask(f"not a logged context: {text[:80]!r} ({error!r})", param="context") from error
    return Context(now_s, task, profile, float(waited_s)), arms


def _short(number: Any) -> str:
    return f"{number:.{SIGNIFICANT_DIGITS}g}" if isfinite(number) else "null"


@lru_cache(maxsize=256)
def _table(kind: TaskKind, arm_ids: tuple[str, ...], node_ids: tuple[str, ...]) -> ArmTable:
    """The same object for the same arms: policies number arms once a table. Its columns are those of any one row."""
    numbers = {node_id: number for number, node_id in enumerate(dict.fromkeys(node_ids))}
    node, room = np.array([numbers[node_id] for node_id in node_ids], dtype=np.intp), len(arm_ids)
    return ArmTable(kind, arm_ids, node_ids, node, np.zeros(room, np.bool_), np.zeros(room), np.ones(room))


def _arms(table: ArmTable, columns: dict[str, Floats]) -> Arms:
    return Arms(
        table=table,
        rows=np.arange(len(table.arm_ids), dtype=np.intp),
        node=table.node,
        is_cloud=columns.pop("is_cloud") > 0,
        latency_s=columns["transmission_s"] + columns["queue_s"] + columns["service_s"],
        **columns,
    )
