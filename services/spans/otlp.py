"""From outcomes to spans, and from spans to an OTLP/JSON request. Pure.

Durations are measured. An outcome does not say when a part starts, so the parts follow each other without gaps: the
gateway's from the arrival on, the node's from the dispatch on. The rest of the time is that of links, retries and
the client.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from skyshore.domain.outcome import Outcome, OutcomeStatus

GATEWAY = "gateway"
"""Service name of the spans that the gateway measured."""

_TRACE_ID = re.compile(r"[0-9a-f]{32}(?=$|-)")
_STATUS_OK, _STATUS_ERROR = 1, 2
_KIND_INTERNAL, _KIND_SERVER = 1, 2

Attribute = str | float | int


@dataclass(frozen=True, slots=True)
class Span:
    """One span of a trace. `service` groups spans in the viewer; times are seconds since the epoch."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_s: float
    end_s: float
    attributes: dict[str, Attribute]
    error: str | None = None
    """Why it failed, if it did."""
    first_token_s: float = 0.0
    """Time of the first token; 0 if there was none."""


def trace_id(task_id: str) -> str:
    """The task id, if it has the form of a trace id (those of the gateway have), else a hash of it.

    So a client finds the trace by the id of its task. The segments of an upload share one trace.
    """
    match = _TRACE_ID.match(task_id)
    return match[0] if match else hashlib.sha256(task_id.encode()).hexdigest()[:32]


def spans_of(outcome: Outcome) -> list[Span]:
    """The span of the whole attempt, then those of its measured parts."""
    trace = trace_id(outcome.task_id)
    start_s = outcome.finished_at_s - outcome.latency_s
    attempt_id = _span_id(outcome, "task")
    attempt = Span(
        GATEWAY,
        "task",
        trace,
        attempt_id,
        "",
        start_s,
        outcome.finished_at_s,
        _attributes(outcome),
        error=None if outcome.status is OutcomeStatus.OK else outcome.error or outcome.status.value,
        first_token_s=start_s + outcome.ttft_s if outcome.ttft_s else 0.0,
    )
    parts = [
        Span(service, name, trace, _span_id(outcome, name), attempt_id, from_s, from_s + length_s, {})
        for service, name, from_s, length_s in _parts(outcome, start_s)
        if length_s > 0
    ]
    return [attempt, *parts]


def request(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The body of POST /v1/traces: spans grouped by service."""
    by_service: dict[str, list[dict[str, Any]]] = {}
    for outcome in outcomes:
        for span in spans_of(outcome):
            by_service.setdefault(span.service, []).append(_span_json(span))
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [_attribute("service.name", service)]},
                "scopeSpans": [{"scope": {"name": "skyshore"}, "spans": spans}],
            }
            for service, spans in by_service.items()
        ]
    }


def _parts(outcome: Outcome, start_s: float) -> Iterator[tuple[str, str, float, float]]:
    yield GATEWAY, "place", start_s, outcome.gateway_s
    at_s, worker = start_s + outcome.gateway_s, outcome.worker
    for name, length_s in (("queue", worker.queue_s), ("prefill", worker.prefill_s), ("compute", worker.compute_s)):
        yield outcome.node_id, name, at_s, length_s
        at_s += length_s


def _attributes(outcome: Outcome) -> dict[str, Attribute]:
    worker = outcome.worker
    attributes: dict[str, Attribute] = {
        "skyshore.task_id": outcome.task_id,
        "skyshore.node": outcome.node_id,
        "skyshore.arm": outcome.arm_id,
        "skyshore.class": outcome.service_class,
        "skyshore.status": outcome.status.value,
        "skyshore.deadline_s": outcome.deadline_s,
        "skyshore.up_bytes": outcome.up_bytes,
        "skyshore.down_bytes": outcome.down_bytes,
        "skyshore.joules": outcome.joules,
        "skyshore.energy_source": worker.energy_source,
        "skyshore.prompt_tokens": worker.prompt_tokens,
        "skyshore.output_tokens": worker.output_tokens,
        "skyshore.frames": worker.frames,
    }
    return {name: value for name, value in attributes.items() if value or name == "skyshore.joules"}


def _span_id(outcome: Outcome, part: str) -> str:
    """Equal for the same outcome, so that sending it twice does no harm; different for another attempt."""
    text = f"{outcome.task_id}/{outcome.arm_id}/{outcome.finished_at_s!r}/{part}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _span_json(span: Span) -> dict[str, Any]:
    body: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": _KIND_INTERNAL if span.parent_id else _KIND_SERVER,
        "startTimeUnixNano": _nanoseconds(span.start_s),
        "endTimeUnixNano": _nanoseconds(span.end_s),
        "attributes": [_attribute(name, value) for name, value in span.attributes.items()],
        "status": {"code": _STATUS_OK} if span.error is None else {"code": _STATUS_ERROR, "message": span.error},
    }
    if span.parent_id:
        body["parentSpanId"] = span.parent_id
    if span.first_token_s:
        body["events"] = [{"name": "first token", "timeUnixNano": _nanoseconds(span.first_token_s)}]
    return body


def _attribute(name: str, value: Attribute) -> dict[str, Any]:
    match value:
        case str():
            return {"key": name, "value": {"stringValue": value}}
        case int():
            return {"key": name, "value": {"intValue": str(value)}}
        case _:
            return {"key": name, "value": {"doubleValue": value}}


def _nanoseconds(point_s: float) -> str:
    """OTLP's JSON writes 64-bit integers as strings."""
    return str(round(point_s * 1e9))
