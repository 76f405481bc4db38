"""Every key the system keeps, how long, how many, and in what format. `docs/state.md` is this file in prose."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

from skyshore.domain.job import TaskRecord, TaskState
from skyshore.domain.node import Link, Node, NodeStatus
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import DecisionRecord
from skyshore.v1 import node_pb2, outcome_pb2
from skyshore.wire.fleet import report_from_proto, report_to_proto
from skyshore.wire.result import decision_from_proto, decision_to_proto, outcome_from_proto, outcome_to_proto

PREFIX = "skyshore:"
NODES = PREFIX + "nodes"
"""Sorted set: node id → when its lease runs out. Only an index; the lease itself is the key of `node_key`."""
JOBS = PREFIX + "jobs"
"""Stream of accepted jobs, fields `task` and `body`. Never trimmed: an entry leaves when its job ended."""
JOBS_GROUP = "workers"
DEAD_JOBS = PREFIX + "jobs:dead"
"""Stream of jobs given up, fields `task`, `body` and `reason`."""
OUTCOMES = PREFIX + "outcomes"
"""Stream, field `outcome`."""
DECISIONS = PREFIX + "decisions"
"""List, newest first."""

STALE_INDEX_S = 60.0
"""An index entry this long past its lease is swept."""
ENDED_TASK_S = 24 * 3600
OPEN_TASK_S = 7 * 24 * 3600
"""A task that never ends is forgotten after this long without an update."""
MOST_JOBS = 10_000
MOST_DEAD_JOBS = 1_000
MOST_OUTCOMES = 100_000
MOST_DECISIONS = 20_000

_RECORD_FIELDS = tuple(field.name for field in fields(TaskRecord))
_json = json.JSONEncoder(separators=(",", ":")).encode

ENDED = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED})


def node_key(node_id: str) -> str:
    """String with a lease: NodeReport as protobuf."""
    return f"{PREFIX}node:{node_id}"


def link_key(node_id: str) -> str:
    """String with a lease: the measured Link of a node as JSON."""
    return f"{PREFIX}link:{node_id}"


def task_key(task_id: str) -> str:
    """String with a time to live: TaskRecord as JSON."""
    return f"{PREFIX}task:{task_id}"


def policy_key(name: str) -> str:
    """String: a policy's snapshot in its own format."""
    return f"{PREFIX}policy:{name}"


def task_ttl_s(record: TaskRecord) -> int:
    """How long a record is kept from now."""
    return ENDED_TASK_S if record.state in ENDED else OPEN_TASK_S


def encode_record(record: TaskRecord) -> bytes:
    """TaskRecord → JSON."""
    content = {name: getattr(record, name) for name in _RECORD_FIELDS}
    content["detail"] = dict(record.detail) if record.detail is not None else None
    return _json(content).encode()


def decode_record(data: bytes) -> TaskRecord:
    """JSON → TaskRecord."""
    content = json.loads(data)
    content["state"] = TaskState(content["state"])
    content["node_ids"] = tuple(content["node_ids"])
    return TaskRecord(**content)


def encode_report(node: Node, status: NodeStatus) -> bytes:
    """Node and heartbeat → NodeReport."""
    return report_to_proto(node, status).SerializeToString()


def decode_report(data: bytes) -> tuple[Node, NodeStatus]:
    """NodeReport → node and heartbeat."""
    return report_from_proto(node_pb2.NodeReport.FromString(data))


def encode_link(link: Link) -> bytes:
    """Link → JSON."""
    return _json(asdict(link)).encode()


def decode_link(data: bytes) -> Link:
    """JSON → Link."""
    return Link(**json.loads(data))


def encode_outcome(outcome: Outcome) -> bytes:
    """Outcome → protobuf."""
    return outcome_to_proto(outcome).SerializeToString()


def decode_outcome(data: bytes) -> Outcome:
    """Protobuf → Outcome."""
    return outcome_from_proto(outcome_pb2.Outcome.FromString(data))


def encode_decision(record: DecisionRecord) -> bytes:
    """DecisionRecord → protobuf."""
    return decision_to_proto(record).SerializeToString()


def decode_decision(data: bytes) -> DecisionRecord:
    """Protobuf → DecisionRecord."""
    return decision_from_proto(outcome_pb2.DecisionRecord.FromString(data))
