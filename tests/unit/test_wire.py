"""Every domain value survives the trip to protobuf and back, field by field, and classes that differ are refused."""

from __future__ import annotations

import math
from dataclasses import make_dataclass
from enum import Enum
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.codec.fields import fields_of, has_fields, is_enum
from skyshore.domain.errors import Internal, InvalidTask
from skyshore.domain.llm import ChatMessage, LlmInput, Sampling
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.placement import Placement
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Classification, FrameDetections, LabelScore, SegmentInfo
from skyshore.v1 import node_pb2, outcome_pb2, task_pb2, worker_service_pb2
from skyshore.wire.by_name import PAIRS, OneOf, Pair
from skyshore.wire.pairs import (
    ARM,
    LLM_EVENT,
    LLM_INPUT,
    NODE,
    OUTCOME,
    PLACEMENT,
    SEGMENT,
    SEGMENT_EVENT,
    TASK,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=50),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_FLOAT: st.floats(allow_nan=False, width=32),  # others lose bits on the wire
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_STRING: TEXT,
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
}


def values(pair: Pair[Any, Any]) -> st.SearchStrategy[Any]:
    """Any value that the message of the pair can carry."""
    if pair is LLM_INPUT:
        return prompts()
    known = {}
    parts = {part.name: part for part in pair.message.DESCRIPTOR.fields}
    for field in fields_of(pair.cls):
        if (part := parts.get(field.name)) is None:  # off the wire
            continue
        if is_enum(field.type):
            one = st.sampled_from(field.type)
        elif has_fields(field.type):
            one = values(PAIRS[field.type])
        else:
            one = SCALARS[part.type]
        one = st.lists(one, max_size=3).map(tuple) if field.repeated else one
        known[field.name] = st.none() | one if field.optional else one
    if pair is TASK:
        known |= {"task_id": TEXT.filter(bool), "deadline_s": st.floats(1e-3, 1e6)}
    if pair is PLACEMENT:
        known |= {"task_id": TEXT, "attempt": st.integers(1, 9)}
    return st.builds(pair.cls, **known)


def prompts() -> st.SearchStrategy[LlmInput]:
    sampling = values(PAIRS[Sampling])
    turns = st.lists(st.builds(ChatMessage, TEXT, TEXT), min_size=1, max_size=3).map(tuple)
    ids = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5).map(tuple)
    return st.one_of(
        st.builds(LlmInput, messages=turns, sampling=sampling),
        st.builds(LlmInput, prompt=TEXT, sampling=sampling),
        st.builds(LlmInput, prompt_token_ids=ids, sampling=sampling),
    )


@pytest.mark.parametrize("cls", PAIRS, ids=lambda cls: cls.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_a_value_of_every_pair_returns_equal(cls: type[Any], data: st.DataObject) -> None:
    pair = PAIRS[cls]
    value = data.draw(values(pair))
    message = pair.message.FromString(pair.to_proto(value).SerializeToString())
    given_by_reader = {"task_id": value.task_id, "attempt": value.attempt} if cls is Placement else {}
    assert pair.from_proto(message, **given_by_reader) == value


@settings(max_examples=40)
@given(data=st.data(), events=st.sampled_from([LLM_EVENT, SEGMENT_EVENT]))
def test_an_event_of_every_kind_returns_equal(data: st.DataObject, events: OneOf[Any]) -> None:
    for pair in PAIRS.values():
        if pair.message.DESCRIPTOR in [field.message_type for field in events.message.DESCRIPTOR.fields]:
            event = data.draw(values(pair))
            assert events.from_proto(events.to_proto(event)) == event


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (task_pb2.Task(task_id="t", deadline_s=1), "kind"),
        (task_pb2.Task(task_id="t", kind=99, deadline_s=1), "kind"),
        (task_pb2.Task(kind=task_pb2.TASK_KIND_LLM, deadline_s=1), "task_id"),
        (task_pb2.Task(task_id="t", kind=task_pb2.TASK_KIND_LLM), "deadline_s"),
        (task_pb2.Task(task_id="t", kind=task_pb2.TASK_KIND_LLM, deadline_s=-1), "deadline_s"),
        (task_pb2.Task(task_id="t", kind=task_pb2.TASK_KIND_LLM, deadline_s=math.nan), "deadline_s"),
    ],
)
def test_incomplete_task_names_the_field_to_blame(message: task_pb2.Task, param: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        TASK.from_proto(message)
    assert caught.value.param == param


def test_messages_that_say_nothing_are_refused() -> None:
    with pytest.raises(InvalidTask, match="no prompt"):
        LLM_INPUT.from_proto(task_pb2.LlmInput())
    with pytest.raises(InvalidTask, match="CODEC_JPEG, CODEC_H264"):
        SEGMENT.from_proto(task_pb2.SegmentInfo())
    with pytest.raises(InvalidTask, match="TIER_EDGE"):
        NODE.from_proto(node_pb2.Node(node_id="n"))
    with pytest.raises(InvalidTask, match="kind"):
        ARM.from_proto(node_pb2.Arm())
    with pytest.raises(Internal, match="status"):
        OUTCOME.from_proto(outcome_pb2.Outcome())
    with pytest.raises(Internal, match="same version"):
        SEGMENT_EVENT.from_proto(worker_service_pb2.ExecuteSegmentResponse())


def test_the_arm_of_a_segment_stays_where_it_is() -> None:
    info = SegmentInfo(0, 8, 640, 480, arm_id="edge/nanodet")
    assert SEGMENT.from_proto(SEGMENT.to_proto(info)).arm_id == ""


def test_boxes_labels_and_outcomes_of_a_segment_are_kept_apart() -> None:
    for event in (
        Classification((LabelScore("meet", 1.0),)),
        FrameDetections(3, 0.5, ()),
        WorkerOutcome(queue_s=1.0, frames=2),
    ):
        assert SEGMENT_EVENT.from_proto(SEGMENT_EVENT.to_proto(event)) == event


def _like_task(**changes: Any) -> type[Any]:
    types = {field.name: field.type for field in fields_of(Task)} | changes
    return make_dataclass("Task", [(name, hint) for name, hint in types.items() if hint is not None])


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"priority": int}, "only the class has 'priority'"),
        ({"origin": None}, "only the message has 'origin'"),
        ({"deadline_s": int}, "'deadline_s' is float in the message and <class 'int'> in the class"),
        ({"origin": tuple[str, ...]}, "'origin' is repeated in one of them only"),
        ({"origin": str | None}, "'origin' is optional in one of them only"),
        ({"kind": str}, "'kind' is an enum in the message only"),
        ({"kind": Enum("TaskKind", ["LLM", "AUDIO"])}, "'kind' has other members: TASK_KIND_AUDIO"),
    ],
)
def test_a_class_that_differs_from_its_message_is_refused(changes: dict[str, Any], difference: str) -> None:
    with pytest.raises(TypeError, match=r"skyshore\.v1\.Task and .*Task differ: ") as caught:
        Pair(task_pb2.Task, _like_task(**changes))
    assert difference in str(caught.value)
    assert PAIRS[Task] is TASK


def test_a_nested_message_needs_a_pair() -> None:
    cls = make_dataclass("Report", [("node", Task), ("status", TaskKind)])
    with pytest.raises(TypeError, match=r"'node' needs a pair of skyshore\.v1\.Node"):
        Pair(node_pb2.NodeReport, cls)
