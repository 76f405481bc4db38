"""What a trace viewer is told of an outcome."""

import json

import pytest

from services.spans.otlp import request, spans_of, trace_id
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome

TASK = "0123456789abcdef0123456789abcdef"
WORKER = WorkerOutcome(
    queue_s=0.5, prefill_s=0.25, compute_s=2.0, output_tokens=9, inference_joules=3.0, energy_source="modelled:linear"
)


def outcome(
    task_id: str = TASK, status: OutcomeStatus = OutcomeStatus.OK, finished_at_s: float = 100.0, error: str = ""
) -> Outcome:
    return Outcome(
        task_id=task_id,
        arm_id="edge-1/smollm2-135m",
        node_id="edge-1",
        status=status,
        finished_at_s=finished_at_s,
        latency_s=4.0,
        deadline_s=60.0,
        ttft_s=1.0,
        gateway_s=0.125,
        error=error,
        worker=WORKER,
    )


def test_a_trace_is_found_by_the_task_id_a_caller_was_told_and_segments_share_it() -> None:
    assert trace_id(TASK) == TASK
    assert trace_id(f"{TASK}-12") == TASK
    other = trace_id("made by hand")
    assert len(other) == 32
    assert int(other, 16)


def test_measured_parts_lie_inside_the_attempt_end_to_end() -> None:
    attempt, *parts = spans_of(outcome())
    assert (attempt.start_s, attempt.end_s, attempt.first_token_s) == (96.0, 100.0, 97.0)
    assert [(part.service, part.name) for part in parts] == [
        ("gateway", "place"),
        ("edge-1", "queue"),
        ("edge-1", "prefill"),
        ("edge-1", "compute"),
    ]
    assert [part.end_s - part.start_s for part in parts] == [0.125, 0.5, 0.25, 2.0]
    assert [part.start_s for part in parts[1:]] == [part.end_s for part in parts[:-1]]
    assert {part.parent_id for part in parts} == {attempt.span_id}
    assert attempt.attributes["skyshore.joules"] == 3.0
    assert attempt.attributes["skyshore.energy_source"] == "modelled:linear"


def test_two_attempts_at_one_task_are_two_spans_and_the_same_outcome_always_the_same_one() -> None:
    failed = outcome(status=OutcomeStatus.FAILED, finished_at_s=98.0, error="edge-1 went away")
    ids = {spans_of(o)[0].span_id for o in (failed, outcome(), outcome())}
    assert len(ids) == 2
    assert spans_of(failed)[0].error == "edge-1 went away"
    assert spans_of(outcome())[0].error is None


def test_the_request_is_otlp_json() -> None:
    body = json.loads(json.dumps(request([outcome(), outcome(f"{TASK}-1")])))
    services = {
        group["resource"]["attributes"][0]["value"]["stringValue"]: group["scopeSpans"][0]["spans"]
        for group in body["resourceSpans"]
    }
    assert {name: len(spans) for name, spans in services.items()} == {"gateway": 4, "edge-1": 6}
    span = services["gateway"][0]
    assert (span["traceId"], len(span["spanId"]), span["kind"]) == (TASK, 16, 2)
    assert span["startTimeUnixNano"] == "96000000000"
    assert span["endTimeUnixNano"] == "100000000000"
    assert "parentSpanId" not in span
    values = {entry["key"]: entry["value"] for entry in span["attributes"]}
    assert values["skyshore.output_tokens"] == {"intValue": "9"}
    assert values["skyshore.deadline_s"] == {"doubleValue": 60.0}


@pytest.mark.parametrize("status", [status for status in OutcomeStatus if status is not OutcomeStatus.OK])
def test_whatever_did_not_go_well_is_an_error_in_the_viewer(status: OutcomeStatus) -> None:
    (group, *_) = request([outcome(status=status)])["resourceSpans"]
    said = group["scopeSpans"][0]["spans"][0]["status"]
    assert said == {"code": 2, "message": status.value}
