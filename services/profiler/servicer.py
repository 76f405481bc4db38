"""ProfilerService: translation only."""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

from typing import Any

from services.profiler.profiler import TaskProfiler
from skyshore.domain.errors import InvalidTask
from skyshore.v1 import profiler_service_pb2 as pb
from skyshore.v1 import profiler_service_pb2_grpc
from skyshore.wire.demand import llm_from_proto, profile_from_proto, profile_to_proto, task_from_proto


class ProfilerServicer(profiler_service_pb2_grpc.ProfilerServiceServicer):
    """Calls → TaskProfiler."""

    def __init__(self, profiler: TaskProfiler) -> None:
        self._profiler = profiler

    async def ProfileTask(self, request: pb.ProfileTaskRequest, context: Any) -> pb.ProfileTaskResponse:
        """See the proto."""
        task = task_from_proto(request.task)
        match request.WhichOneof("payload"):
            case "llm":
                profile = await self._profiler.profile_llm(task, llm_from_proto(request.llm))
            case "video":
                video = request.video
                facts = profile_from_proto(video.facts)
                profile = await self._profiler.profile_video(
                    task, facts, video.luma_width, video.luma_height, video.luma
                )
            case _:
                raise InvalidTask("the request holds neither a prompt nor a key frame", param="payload")
        return pb.ProfileTaskResponse(profile=profile_to_proto(profile))
