"""Requests as gateway, profiler and links make them of arrivals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from simulator.preferences import UNSEEN, Seen, SegmentPictures
from skyshore.domain.node import Arm
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.links.framing import BOX_BYTES, FRAME_BYTES, REPLY_BYTES, REQUEST_BYTES, TOKEN_BYTES
from skyshore.nodemodel.clips import CLIP_FRAMES, strided
from skyshore.policies.kernel_policy import KIND_NUMBERS
from skyshore.workload.arrival import Arrival

CHARACTERS_PER_TOKEN = 4
ANSWER_CHARACTERS_PER_TOKEN = 5
"""Of an answer: a short word and the blank before it, as emulated engines and most English vocabularies give."""


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """One request with its task and profile."""

    arrival: Arrival
    task: Task
    profile: TaskProfile

    def bytes_to(self, arm: Arm) -> int:
        """Bytes that reach the node when the task is placed on `arm`."""
        if self.task.kind is TaskKind.LLM:
            return REQUEST_BYTES + self.arrival.prompt_tokens * CHARACTERS_PER_TOKEN
        return REQUEST_BYTES + int(frames_sent(self.arrival, arm) * (FRAME_BYTES + arm.bytes_per_frame))


def request_of(arrival: Arrival, pictures: SegmentPictures) -> TaskRequest:
    """Task and profile as the gateway and the profiler would make them.

    The expected length of an answer is its true one: a replay asks for exactly so many tokens and says so.
    """
    task = Task(
        task_id=arrival.request_id,
        kind=arrival.kind,
        service_class=arrival.service_class,
        deadline_s=arrival.deadline_s,
        min_quality=arrival.min_quality,
        origin=arrival.origin,
        job_id=arrival.camera,
    )
    seen = UNSEEN if arrival.kind is TaskKind.LLM else pictures.of(arrival, task)
    profile = _profile(arrival.prompt_tokens, arrival.output_tokens, frames_offered(arrival), arrival.fps, seen)
    return TaskRequest(arrival, task, profile)


def record_values(arrival: Arrival, group: int, gateway_s: float, hop_s: float) -> tuple[float | int, ...]:
    """One arrival as REQUEST has it, field by field; `group` numbers its service class."""
    return (
        arrival.t_intended_s,
        arrival.deadline_s,
        arrival.min_quality,
        float(arrival.prompt_tokens * CHARACTERS_PER_TOKEN),
        gateway_s,
        hop_s,
        KIND_NUMBERS[arrival.kind],
        group,
        arrival.prompt_tokens,
        arrival.output_tokens,
        frames_offered(arrival),
        answer_bytes(arrival),
    )


def answer_bytes(arrival: Arrival) -> int:
    """Bytes of the answer to a request."""
    if arrival.kind is TaskKind.LLM:
        return REPLY_BYTES + arrival.output_tokens * (TOKEN_BYTES + ANSWER_CHARACTERS_PER_TOKEN)
    return REPLY_BYTES + int(arrival.objects_per_frame * arrival.frames * BOX_BYTES)


def frames_sent(arrival: Arrival, arm: Arm) -> int:
    """Frames left after the arm's stride."""
    return strided(frames_offered(arrival), arm.frame_stride)


def frames_offered(arrival: Arrival) -> int:
    """Frames the gateway would send before striding: of a clip to be classified a sample, as `ClassifyWork` does."""
    return min(arrival.frames, CLIP_FRAMES) if arrival.kind is TaskKind.VIDEO_CLASSIFY else arrival.frames


@lru_cache(maxsize=4096)
def _profile(prompt_tokens: int, output_tokens: int, frames: int, fps: float, seen: Seen) -> TaskProfile:
    """One object for all alike: a profile cannot change, and cameras ask for the same again and again."""
    return TaskProfile(
        prompt_tokens=prompt_tokens,
        expected_output_tokens=float(output_tokens),
        frame_count=frames,
        fps=fps,
        input_bytes=prompt_tokens * CHARACTERS_PER_TOKEN,
        complexity=seen[0],
        compute_preference=seen[1],
    )
