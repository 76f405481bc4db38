"""The ProfilerClient port over the mux."""

from __future__ import annotations

from skyshore.adapters.service_call import call_service
from skyshore.domain.llm import LlmInput
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task
from skyshore.mux.client import MuxChannel
from skyshore.v1 import profiler_service_pb2 as pb
from skyshore.wire.pairs import LLM_INPUT, PROFILE, TASK

PROFILE_TASK = "/skyshore.v1.ProfilerService/ProfileTask"


class MuxProfilerClient:
    """Calls the profiler at the other end of `channel`, which the caller closes."""

    def __init__(self, channel: MuxChannel) -> None:
        self._channel = channel

    async def profile_llm(self, task: Task, request: LlmInput) -> TaskProfile:
        """See ProfilerClient."""
        return await self._profile(
            task, pb.ProfileTaskRequest(task=TASK.to_proto(task), llm=LLM_INPUT.to_proto(request))
        )

    async def profile_video(self, task: Task, probe: TaskProfile, luma: bytes) -> TaskProfile:
        """See ProfilerClient."""
        video = pb.VideoProbe(
            facts=PROFILE.to_proto(probe), luma_width=probe.width, luma_height=probe.height, luma=luma
        )
        return await self._profile(task, pb.ProfileTaskRequest(task=TASK.to_proto(task), video=video))

    async def _profile(self, task: Task, request: pb.ProfileTaskRequest) -> TaskProfile:
        response = await call_service(
            self._channel, "profiler", PROFILE_TASK, request, pb.ProfileTaskResponse, deadline_s=task.deadline_s
        )
        return PROFILE.from_proto(response.profile)
