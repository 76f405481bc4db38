"""Tasks, prompts, frames and profiles."""

from __future__ import annotations

from skyshore.domain.errors import InvalidTask
from skyshore.domain.llm import ChatMessage, LlmInput, Sampling
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.domain.video import Codec, EncodedFrame, SegmentInfo
from skyshore.v1 import profile_pb2, task_pb2

KIND_TO_PROTO = {
    TaskKind.LLM: task_pb2.TASK_KIND_LLM,
    TaskKind.VIDEO_DETECT: task_pb2.TASK_KIND_VIDEO_DETECT,
    TaskKind.VIDEO_CLASSIFY: task_pb2.TASK_KIND_VIDEO_CLASSIFY,
}
KIND_FROM_PROTO = {proto: kind for kind, proto in KIND_TO_PROTO.items()}
CODEC_TO_PROTO = {Codec.JPEG: task_pb2.CODEC_JPEG, Codec.H264: task_pb2.CODEC_H264}
CODEC_FROM_PROTO = {proto: codec for codec, proto in CODEC_TO_PROTO.items()}


def task_to_proto(task: Task) -> task_pb2.Task:
    """Task → message."""
    return task_pb2.Task(
        task_id=task.task_id,
        kind=KIND_TO_PROTO[task.kind],
        service_class=task.service_class,
        deadline_s=task.deadline_s,
        min_quality=task.min_quality,
        model=task.model,
        origin=task.origin,
        job_id=task.job_id,
        traceparent=task.traceparent,
    )


def task_from_proto(message: task_pb2.Task) -> Task:
    """Message → Task. Raises InvalidTask for a missing id or kind, or a deadline that is not positive."""
    kind = KIND_FROM_PROTO.get(message.kind)
    if kind is None:
        raise InvalidTask("the task has no kind; set one of llm, video.detect, video.classify", param="kind")
    if not message.task_id:
        raise InvalidTask("the task has no task_id", param="task_id")
    if not message.deadline_s > 0:
        raise InvalidTask(f"deadline_s must be positive, not {message.deadline_s}", param="deadline_s")
    return Task(
        message.task_id,
        kind,
        message.service_class,
        message.deadline_s,
        message.min_quality,
        message.model,
        message.origin,
        message.job_id,
        message.traceparent,
    )


def sampling_to_proto(sampling: Sampling) -> task_pb2.Sampling:
    """Sampling → message."""
    return task_pb2.Sampling(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        stop=sampling.stop,
        ignore_eos=sampling.ignore_eos,
        logprobs=sampling.logprobs,
        json_schema=sampling.json_schema,
        regex=sampling.regex,
    )


def sampling_from_proto(message: task_pb2.Sampling) -> Sampling:
    """Message → Sampling."""
    return Sampling(
        max_tokens=message.max_tokens,
        temperature=message.temperature,
        top_p=message.top_p,
        top_k=message.top_k,
        min_p=message.min_p,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        repetition_penalty=message.repetition_penalty,
        seed=message.seed if message.HasField("seed") else None,
        stop=tuple(message.stop),
        ignore_eos=message.ignore_eos,
        logprobs=message.logprobs if message.HasField("logprobs") else None,
        json_schema=message.json_schema,
        regex=message.regex,
    )


def llm_to_proto(request: LlmInput) -> task_pb2.LlmInput:
    """LlmInput → message."""
    message = task_pb2.LlmInput(sampling=sampling_to_proto(request.sampling))
    if request.messages:
        message.chat.messages.extend(
            task_pb2.ChatMessage(role=turn.role, content=turn.content) for turn in request.messages
        )
    elif request.prompt_token_ids:
        message.token_ids.ids.extend(request.prompt_token_ids)
    else:
        message.prompt = request.prompt
    return message


def llm_from_proto(message: task_pb2.LlmInput) -> LlmInput:
    """Message → LlmInput. Raises InvalidTask when it holds no prompt."""
    sampling = sampling_from_proto(message.sampling)
    match message.WhichOneof("prompt_form"):
        case "chat":
            turns = tuple(ChatMessage(turn.role, turn.content) for turn in message.chat.messages)
            return LlmInput(messages=turns, sampling=sampling)
        case "prompt":
            return LlmInput(prompt=message.prompt, sampling=sampling)
        case "token_ids":
            return LlmInput(prompt_token_ids=tuple(message.token_ids.ids), sampling=sampling)
        case _:
            raise InvalidTask("the request holds no prompt", param="prompt")


def segment_to_proto(info: SegmentInfo) -> task_pb2.SegmentInfo:
    """SegmentInfo → message."""
    return task_pb2.SegmentInfo(
        segment_index=info.segment_index,
        frame_count=info.frame_count,
        source_width=info.source_width,
        source_height=info.source_height,
        codec=CODEC_TO_PROTO[info.codec],
        classes=info.classes,
        min_score=info.min_score,
    )


def segment_from_proto(message: task_pb2.SegmentInfo) -> SegmentInfo:
    """Message → SegmentInfo. Raises InvalidTask for an unknown codec."""
    codec = CODEC_FROM_PROTO.get(message.codec)
    if codec is None:
        raise InvalidTask("the segment has no codec; set CODEC_JPEG or CODEC_H264", param="codec")
    return SegmentInfo(
        message.segment_index,
        message.frame_count,
        message.source_width,
        message.source_height,
        codec,
        tuple(message.classes),
        message.min_score,
    )


def frame_to_proto(frame: EncodedFrame) -> task_pb2.EncodedFrame:
    """EncodedFrame → message."""
    return task_pb2.EncodedFrame(frame_index=frame.frame_index, timestamp_s=frame.timestamp_s, data=frame.data)


def frame_from_proto(message: task_pb2.EncodedFrame) -> EncodedFrame:
    """Message → EncodedFrame."""
    return EncodedFrame(message.frame_index, message.timestamp_s, message.data)


def profile_to_proto(profile: TaskProfile) -> profile_pb2.TaskProfile:
    """TaskProfile → message."""
    return profile_pb2.TaskProfile(
        prompt_tokens=profile.prompt_tokens,
        expected_output_tokens=profile.expected_output_tokens,
        frame_count=profile.frame_count,
        width=profile.width,
        height=profile.height,
        fps=profile.fps,
        input_bytes=profile.input_bytes,
        complexity=profile.complexity,
        compute_preference=profile.compute_preference,
    )


def profile_from_proto(message: profile_pb2.TaskProfile) -> TaskProfile:
    """Message → TaskProfile."""
    return TaskProfile(
        message.prompt_tokens,
        message.expected_output_tokens,
        message.frame_count,
        message.width,
        message.height,
        message.fps,
        message.input_bytes,
        tuple(message.complexity),
        message.compute_preference,
    )
