"""Every domain value survives the trip to protobuf and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.domain.errors import Internal, InvalidTask
from skyshore.domain.llm import ChatMessage, FinishReason, LlmInput, Sampling, TokenChunk, TokenLogprob
from skyshore.domain.node import Arm, Node, NodeStatus, Tier
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.placement import DecisionRecord, Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Classification, Codec, Detection, EncodedFrame, FrameDetections, SegmentInfo
from skyshore.v1 import node_pb2, outcome_pb2, task_pb2, worker_service_pb2
from skyshore.wire import demand, fleet, result

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
COUNT = st.integers(0, 2**32 - 1)
SIZE = st.floats(0, 1e9)
# Fields of type float lose bits on the wire; values that fit into 32 bits come back equal.
SINGLE = st.floats(0, 1e6, width=32)
SIGNED_SINGLE = st.floats(-1e6, 1e6, width=32)

TASKS = st.builds(
    Task, NAME, st.sampled_from(TaskKind), TEXT, st.floats(1e-3, 1e6), st.floats(0, 1), TEXT, TEXT, TEXT, TEXT
)
SAMPLING = st.builds(
    Sampling,
    max_tokens=COUNT,
    temperature=SINGLE,
    top_p=SINGLE,
    top_k=COUNT,
    min_p=SINGLE,
    presence_penalty=SIGNED_SINGLE,
    frequency_penalty=SIGNED_SINGLE,
    repetition_penalty=SINGLE,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(TEXT, max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    logprobs=st.none() | COUNT,
    json_schema=TEXT,
    regex=TEXT,
)
PROMPTS = st.one_of(
    st.builds(
        lambda turns, sampling: LlmInput(messages=turns, sampling=sampling),
        st.lists(st.builds(ChatMessage, NAME, TEXT), min_size=1, max_size=3).map(tuple),
        SAMPLING,
    ),
    st.builds(lambda text, sampling: LlmInput(prompt=text, sampling=sampling), TEXT, SAMPLING),
    st.builds(
        lambda ids, sampling: LlmInput(prompt_token_ids=ids, sampling=sampling),
        st.lists(COUNT, min_size=1, max_size=5).map(tuple),
        SAMPLING,
    ),
)
ARMS = st.builds(
    Arm,
    arm_id=NAME,
    node_id=NAME,
    kind=st.sampled_from(TaskKind),
    model=TEXT,
    quality=st.floats(0, 1),
    slots=COUNT,
    prefill_tokens_per_s=SIZE,
    decode_tokens_per_s=SIZE,
    context_tokens=COUNT,
    frame_s=SIZE,
    input_size=COUNT,
    codec=st.sampled_from(Codec),
    encode_quality=COUNT,
    frame_stride=COUNT,
    bytes_per_frame=SIZE,
    busy_watts=SIZE,
)
WORKER_OUTCOMES = st.builds(
    WorkerOutcome, SIZE, SIZE, SIZE, COUNT, COUNT, COUNT, COUNT, SIZE, SIZE, st.just("modelled:cpu")
)


@given(TASKS)
def test_task_returns_equal(task: Task) -> None:
    assert demand.task_from_proto(demand.task_to_proto(task)) == task


@given(PROMPTS)
def test_prompt_of_every_form_returns_equal(prompt: LlmInput) -> None:
    assert demand.llm_from_proto(demand.llm_to_proto(prompt)) == prompt


@given(st.builds(SegmentInfo, COUNT, COUNT, COUNT, COUNT, st.sampled_from(Codec), st.just(("car", "dog")), SINGLE))
def test_segment_returns_equal(info: SegmentInfo) -> None:
    assert demand.segment_from_proto(demand.segment_to_proto(info)) == info


@given(st.builds(EncodedFrame, COUNT, SIZE, st.binary(max_size=50)))
def test_frame_returns_equal(frame: EncodedFrame) -> None:
    assert demand.frame_from_proto(demand.frame_to_proto(frame)) == frame


@given(st.builds(TaskProfile, COUNT, SIZE, COUNT, COUNT, COUNT, SIZE, COUNT, st.just((0.5, 0.25)), st.floats(0, 1)))
def test_profile_returns_equal(profile: TaskProfile) -> None:
    assert demand.profile_from_proto(demand.profile_to_proto(profile)) == profile


@given(
    st.builds(Node, NAME, st.sampled_from(Tier), TEXT, st.lists(ARMS, max_size=2).map(tuple), SIZE, TEXT, TEXT),
    st.builds(NodeStatus, NAME, COUNT, COUNT, COUNT, st.floats(0, 1), SIZE, SIZE, SIZE, st.booleans()),
)
def test_registry_entry_returns_equal(node: Node, status: NodeStatus) -> None:
    assert fleet.report_from_proto(fleet.report_to_proto(node, status)) == (node, status)


@given(ARMS, st.sampled_from(Tier), st.floats(0, 1), st.integers(1, 9))
def test_placement_returns_equal_for_the_task_that_asked(arm: Arm, tier: Tier, propensity: float, attempt: int) -> None:
    placement = Placement("t1", arm, tier, "host:1", "linucb", propensity, 12.5, 0.75, attempt)
    message = fleet.placement_to_proto(placement)
    assert fleet.placement_from_proto("t1", message, attempt=attempt) == placement


@given(
    TEXT,
    COUNT,
    st.lists(
        st.builds(TokenLogprob, TEXT, SIGNED_SINGLE, st.lists(st.tuples(TEXT, SIGNED_SINGLE), max_size=2).map(tuple)),
        max_size=2,
    ).map(tuple),
    st.none() | st.sampled_from(FinishReason),
)
def test_chunk_returns_equal(
    text: str, count: int, logprobs: tuple[TokenLogprob, ...], reason: FinishReason | None
) -> None:
    chunk = TokenChunk(text, count, logprobs, reason, 7, 3)
    assert result.chunk_from_proto(result.chunk_to_proto(chunk)) == chunk


@given(st.lists(st.builds(Detection, NAME, SINGLE, SINGLE, SINGLE, SINGLE, SINGLE), max_size=3).map(tuple), COUNT)
def test_detections_return_equal(boxes: tuple[Detection, ...], index: int) -> None:
    frame = FrameDetections(index, 0.04, boxes)
    assert result.detections_from_proto(result.detections_to_proto(frame)) == frame


@given(WORKER_OUTCOMES, st.sampled_from(OutcomeStatus), SIZE)
def test_outcome_returns_equal(worker: WorkerOutcome, status: OutcomeStatus, latency_s: float) -> None:
    outcome = Outcome("t", "a", "n", status, 5.0, latency_s, 60.0, 0.1, 0.002, 9, 8, 0.5, 0.9, "batch", "why", worker)
    assert result.outcome_from_proto(result.outcome_to_proto(outcome)) == outcome


def test_decision_returns_equal() -> None:
    record = DecisionRecord("t", 1.5, "ucb1", "standard", "a2", 0.25, ("a1", "a2"), (0.1, 0.9), (3.0, 4.0))
    assert result.decision_from_proto(result.decision_to_proto(record)) == record


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (task_pb2.Task(task_id="t", deadline_s=1), "kind"),
        (task_pb2.Task(kind=task_pb2.TASK_KIND_LLM, deadline_s=1), "task_id"),
        (task_pb2.Task(task_id="t", kind=task_pb2.TASK_KIND_LLM), "deadline_s"),
        (task_pb2.Task(task_id="t", kind=task_pb2.TASK_KIND_LLM, deadline_s=-1), "deadline_s"),
        (task_pb2.Task(task_id="t", kind=task_pb2.TASK_KIND_LLM, deadline_s=math.nan), "deadline_s"),
    ],
)
def test_incomplete_task_names_the_field_to_blame(message: task_pb2.Task, param: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        demand.task_from_proto(message)
    assert caught.value.param == param


def test_messages_that_say_nothing_are_refused() -> None:
    with pytest.raises(InvalidTask):
        demand.llm_from_proto(task_pb2.LlmInput())
    with pytest.raises(InvalidTask):
        demand.segment_from_proto(task_pb2.SegmentInfo())
    with pytest.raises(InvalidTask):
        fleet.tier_from_proto(node_pb2.TIER_UNSPECIFIED)
    with pytest.raises(Internal):
        result.outcome_from_proto(outcome_pb2.Outcome())


CLASSIFICATIONS = st.lists(st.tuples(TEXT, st.floats(0, 1)), max_size=5).flatmap(
    lambda pairs: st.builds(
        Classification, st.just(tuple(p[0] for p in pairs)), st.just(tuple(p[1] for p in pairs)), COUNT, COUNT
    )
)


@given(CLASSIFICATIONS)
def test_a_verdict_on_a_clip_comes_back_and_is_told_from_boxes_and_outcomes(found: Classification) -> None:
    for event in (found, FrameDetections(3, 0.5, ()), WorkerOutcome(queue_s=1.0, frames=2)):
        assert result.segment_event_from_proto(result.segment_event_to_proto(event)) == event


def test_a_message_about_a_segment_that_says_nothing_is_an_error() -> None:
    with pytest.raises(Internal, match="same version"):
        result.segment_event_from_proto(worker_service_pb2.ExecuteSegmentResponse())
