"""The table of all pairs of a protobuf message and a domain class; each is converted by field name.

A new field is one line in the proto and one line in the class. A new pair is one line here.
"""

from __future__ import annotations

from typing import Any

from skyshore.domain.errors import BadMessage, InvalidTask
from skyshore.domain.llm import ChatMessage, LlmInput, Sampling, TokenChunk, TokenLogprob, TopLogprob
from skyshore.domain.node import Arm, Node, NodeReport, NodeStatus
from skyshore.domain.outcome import Outcome, WorkerOutcome
from skyshore.domain.placement import DecisionRecord, Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task
from skyshore.domain.video import (
    Classification,
    Detection,
    EncodedFrame,
    FrameDetections,
    LabelScore,
    SegmentInfo,
)
from skyshore.v1 import node_pb2, outcome_pb2, profile_pb2, scheduler_service_pb2, task_pb2, worker_service_pb2
from skyshore.wire.by_name import ByHand, OneOf, Pair


def _check_task(task: Task) -> None:
    if not task.task_id:
        raise InvalidTask("the task has no task_id", param="task_id")
    if not task.deadline_s > 0:
        raise InvalidTask(f"deadline_s must be positive, not {task.deadline_s}", param="deadline_s")


def _write_prompt(request: LlmInput, message: task_pb2.LlmInput) -> None:
    if request.messages:
        message.chat.messages.extend(map(CHAT_MESSAGE.to_proto, request.messages))
    elif request.prompt_token_ids:
        message.token_ids.ids.extend(request.prompt_token_ids)
    else:
        message.prompt = request.prompt


def _read_prompt(message: task_pb2.LlmInput) -> dict[str, Any]:
    match message.WhichOneof("prompt_form"):
        case "chat":
            return {"messages": tuple(map(CHAT_MESSAGE.from_proto, message.chat.messages))}
        case "prompt":
            return {"prompt": message.prompt}
        case "token_ids":
            return {"prompt_token_ids": tuple(message.token_ids.ids)}
        case _:
            raise InvalidTask("the request holds no prompt", param="prompt")


# What is asked for.
TASK = Pair(task_pb2.Task, Task, check=_check_task)
PROFILE = Pair(profile_pb2.TaskProfile, TaskProfile)
CHAT_MESSAGE = Pair(task_pb2.ChatMessage, ChatMessage)
SAMPLING = Pair(task_pb2.Sampling, Sampling)
LLM_INPUT = Pair(
    task_pb2.LlmInput,
    LlmInput,
    by_hand=ByHand(
        ("messages", "prompt", "prompt_token_ids"), ("chat", "prompt", "token_ids"), _write_prompt, _read_prompt
    ),
)
SEGMENT = Pair(task_pb2.SegmentInfo, SegmentInfo, off_wire=("arm_id",))
FRAME = Pair(task_pb2.EncodedFrame, EncodedFrame)

# What could do it.
ARM = Pair(node_pb2.Arm, Arm)
NODE = Pair(node_pb2.Node, Node)
NODE_STATUS = Pair(node_pb2.NodeStatus, NodeStatus)
NODE_REPORT = Pair(node_pb2.NodeReport, NodeReport)
PLACEMENT = Pair(scheduler_service_pb2.PlaceResponse, Placement, off_wire=("task_id", "attempt"))

# What the node answers.
TOP_LOGPROB = Pair(worker_service_pb2.TopLogprob, TopLogprob)
TOKEN_LOGPROB = Pair(worker_service_pb2.TokenLogprob, TokenLogprob)
TOKEN_CHUNK = Pair(worker_service_pb2.TokenChunk, TokenChunk)
DETECTION = Pair(worker_service_pb2.Detection, Detection)
FRAME_DETECTIONS = Pair(worker_service_pb2.FrameDetections, FrameDetections)
LABEL_SCORE = Pair(worker_service_pb2.LabelScore, LabelScore)
CLASSIFICATION = Pair(worker_service_pb2.Classification, Classification)
WORKER_OUTCOME = Pair(outcome_pb2.WorkerOutcome, WorkerOutcome)
LLM_EVENT = OneOf(worker_service_pb2.ExecuteResponse, "event", "the node")
SEGMENT_EVENT = OneOf(worker_service_pb2.ExecuteSegmentResponse, "event", "the node")

# What is recorded.
OUTCOME = Pair(outcome_pb2.Outcome, Outcome, error=BadMessage)
DECISION = Pair(outcome_pb2.DecisionRecord, DecisionRecord)
