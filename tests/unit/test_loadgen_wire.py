"""What goes over the wire: server-sent events in any cut, bodies that ask for exactly the scheduled work."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.observation import Observation
from loadgen.payloads import BOUNDARY, ClipCut, payloads
from loadgen.sse import EventParser, ServerEvent
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival

STREAM = b": hello\r\ndata: one\r\n\r\nevent: progress\ndata: a\ndata: b\n\nid: 3\n\ndata:tight\r\rdata: \xc3\xa9\n\n"
EVENTS = [
    ServerEvent("message", "one"),
    ServerEvent("progress", "a\nb"),
    ServerEvent("message", "tight"),
    ServerEvent("message", "é"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8).map(sorted))
def test_events_do_not_depend_on_how_the_bytes_were_cut(cuts: list[int]) -> None:
    parser = EventParser()
    edges = [0, *cuts, len(STREAM)]
    found = [event for start, end in pairwise(edges) for event in parser.feed(STREAM[start:end])]
    assert found == EVENTS


def test_a_completion_asks_for_exactly_the_scheduled_lengths_and_demands() -> None:
    arrival = Arrival(
        0.0, "r1", TaskKind.LLM, "batch", prompt_tokens=12, output_tokens=7, deadline_s=2.5, min_quality=0.4
    )
    payload = payloads([arrival], {}, seed=1)["r1"]
    body = json.loads(b"".join(payload.parts))
    assert payload.path == "/v1/completions"
    assert len(body["prompt"].split()) == 12
    assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (7, True, True)
    assert body["stream_options"] == {"include_usage": True}
    assert payload.headers["x-skyshore-class"] == "batch"
    assert payload.headers["x-skyshore-deadline-s"] == "2.5"
    assert payload.headers["x-skyshore-min-quality"] == "0.4"


def test_an_upload_is_one_file_part_with_the_cut_it_asks_for() -> None:
    arrival = Arrival(0.0, "r1", TaskKind.VIDEO_DETECT, camera="gate", clip="c", frames=4, fps=2.0, first_frame=8)
    payload = payloads([arrival], {ClipCut("c", 8, 4, 2.0): b"\x00video\x01"}, seed=1)["r1"]
    body = b"".join(payload.parts)
    assert payload.size_bytes == len(body)
    assert payload.headers["content-type"] == f"multipart/form-data; boundary={BOUNDARY}"
    head, content = body.split(b"\r\n\r\n", 1)
    assert b'name="file"; filename="gate-8.mp4"' in head
    assert content == b"\x00video\x01\r\n--" + BOUNDARY.encode() + b"--\r\n"


@pytest.mark.parametrize(
    ("code", "http_status", "status"),
    [
        ("deadline_exceeded", 504, OutcomeStatus.DEADLINE_EXCEEDED),
        ("deadline_exceeded", 0, OutcomeStatus.DEADLINE_EXCEEDED),
        ("queue_full", 0, OutcomeStatus.REJECTED),
        ("connection_lost", 0, OutcomeStatus.FAILED),
        ("queue_full", 500, OutcomeStatus.FAILED),
    ],
)
def test_a_failure_is_called_what_it_is_before_and_after_the_first_byte(
    code: str, http_status: int, status: OutcomeStatus
) -> None:
    observation = Observation(Arrival(0.0, "r", TaskKind.LLM, prompt_tokens=10, output_tokens=5, deadline_s=2.0))
    observation.fail(code, 1.0, http_status)
    record = observation.record()
    assert (record.status, record.error_code) == (status, code)
