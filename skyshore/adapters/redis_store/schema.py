"""Every key of the store: its format, its time to live and its bound. `docs/state.md` describes the same in prose."""

from __future__ import annotations

import json

from pydantic import TypeAdapter, ValidationError

from skyshore.codec.document import to_document
from skyshore.domain.job import ENDED, JobRank, TaskRecord
from skyshore.domain.node import Link, NodeReport
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import DecisionRecord
from skyshore.v1 import node_pb2, outcome_pb2
from skyshore.wire.pairs import DECISION, NODE_REPORT, OUTCOME

PREFIX = "skyshore:"
NODES = PREFIX + "nodes"
"""Sorted set: node id → when its lease runs out. Only an index; the lease itself is the key of `node_key`."""
JOBS = PREFIX + "jobs"
"""Stream of accepted jobs, fields `task`, `body`, `caller`, `rank`. Never trimmed: it leaves when its job ends."""
JOBS_GROUP = "workers"
"""Who works on which entry."""
DEAD_JOBS = PREFIX + "jobs:dead"
"""Dead letters: stream of jobs that failed too often, fields `task`, `body` and `reason`."""
OUTCOMES = PREFIX + "outcomes"
"""Stream, field `outcome`."""
DECISIONS = PREFIX + "decisions"
"""List, newest first."""
ENDED_REQUESTS = PREFIX + "requests:ended"
"""List of task ids, newest first: the records of requests that are not clips, in order of their end."""
RESTORER = PREFIX + "restorer"
"""String with a lease: the gateway that restores lost jobs."""
SET_ASIDE = PREFIX + "set-aside:"
"""Prefix of keys that had a wrong type, renamed."""
COLLECTIONS = {NODES: b"zset", JOBS: b"stream", DEAD_JOBS: b"stream", OUTCOMES: b"stream", DECISIONS: b"list"}
COLLECTIONS |= {ENDED_REQUESTS: b"list"}
"""Fixed keys and their types."""

STALE_INDEX_S = 60.0
"""Index entries this long past their lease are removed."""
ENDED_TASK_S = 24 * 3600
OPEN_TASK_S = 7 * 24 * 3600
"""A task that never ends is deleted after this long without an update."""
SET_ASIDE_S = 7 * 24 * 3600
MOST_JOBS = 10_000
MOST_JOB_BYTES = 32 * 1024
"""Longest body of a job: with `MOST_JOBS` it bounds the stream in bytes."""
MOST_DEAD_JOBS = 1_000
MOST_OUTCOMES = 100_000
MOST_DECISIONS = 20_000
MOST_ENDED_REQUESTS = 100_000
MOST_LOG_BYTES = 64 * 1024 * 1024
"""Bound of the outcomes, and of the decisions, in bytes: the count falls when the entries are large."""

_json = json.JSONEncoder(separators=(",", ":")).encode
# They check every field: what another program wrote under our keys must fail here and not later in the scheduler.
_record = TypeAdapter(TaskRecord)
_link = TypeAdapter(Link)
_rank = TypeAdapter(JobRank)


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
    """Seconds for which the record is kept from now."""
    return ENDED_TASK_S if record.state in ENDED else OPEN_TASK_S


def encode_record(record: TaskRecord) -> bytes:
    """TaskRecord → JSON."""
    return _json(to_document(record)).encode()


def decode_record(data: bytes) -> TaskRecord:
    """JSON → TaskRecord."""
    return _record.validate_json(data)


def encode_rank(rank: JobRank) -> bytes:
    """JobRank → JSON."""
    return _json(to_document(rank)).encode()


def decode_rank(data: bytes) -> JobRank:
    """JSON → JobRank; of an entry that has none, or none that can be read, the lowest."""
    try:
        return _rank.validate_json(data)
    except ValidationError:
        return JobRank()


def encode_report(report: NodeReport) -> bytes:
    """NodeReport → protobuf."""
    return NODE_REPORT.to_proto(report).SerializeToString()


def decode_report(data: bytes) -> NodeReport:
    """Protobuf → NodeReport."""
    return NODE_REPORT.from_proto(node_pb2.NodeReport.FromString(data))


def encode_link(link: Link) -> bytes:
    """Link → JSON."""
    return _json(to_document(link)).encode()


def decode_link(data: bytes) -> Link:
    """JSON → Link."""
    return _link.validate_json(data)


def encode_outcome(outcome: Outcome) -> bytes:
    """Outcome → protobuf."""
    return OUTCOME.to_proto(outcome).SerializeToString()


def decode_outcome(data: bytes) -> Outcome:
    """Protobuf → Outcome."""
    return OUTCOME.from_proto(outcome_pb2.Outcome.FromString(data))


def encode_decision(record: DecisionRecord) -> bytes:
    """DecisionRecord → protobuf."""
    return DECISION.to_proto(record).SerializeToString()


def decode_decision(data: bytes) -> DecisionRecord:
    """Protobuf → DecisionRecord."""
    return DECISION.from_proto(outcome_pb2.DecisionRecord.FromString(data))
