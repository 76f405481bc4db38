"""ProfilerService: translates between messages and `TaskProfiler`."""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

from typing import Any

from services.profiler.profiler import TaskProfiler
from skyshore.domain.errors import InvalidTask
from skyshore.v1 import profiler_service_pb2 as pb
from skyshore.v1 import profiler_service_pb2_grpc
from skyshore.wire.pairs import LLM_INPUT, PROFILE, TASK


class ProfilerServicer(profiler_service_pb2_grpc.ProfilerServiceServicer):
    """Calls the methods of a TaskProfiler."""

    def __init__(self, profiler: TaskProfiler) -> None:
        self._profiler = profiler

    async def ProfileTask(self, request: pb.ProfileTaskRequest, context: Any) -> pb.ProfileTaskResponse:
        """See the proto."""
        task = TASK.from_proto(request.task)
        match request.WhichOneof("payload"):
            case "llm":
                profile = await self._profiler.profile_llm(task, LLM_INPUT.from_proto(request.llm))
            case "video":
                video = request.video
                facts = PROFILE.from_proto(video.facts)
                profile = await self._profiler.profile_video(
                    task, facts, video.luma_width, video.luma_height, video.luma
                )
            case _:
                raise InvalidTask("the request has neither a prompt nor a key frame", param="payload")
        return pb.ProfileTaskResponse(profile=PROFILE.to_proto(profile))
