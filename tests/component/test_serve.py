"""How every process serves and stops, over real gRPC on a free port."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from skyshore.domain.errors import QueueFull
from skyshore.runtime.serve import GrpcService, grpc_server
from skyshore.v1 import worker_service_pb2 as pb
from skyshore.v1 import worker_service_pb2_grpc as pb_grpc
from skyshore.wire import status


class Worker(pb_grpc.WorkerServiceServicer):
    """Streams until told to stop; fails on demand."""

    def __init__(self) -> None:
        self.started, self.finish = asyncio.Event(), asyncio.Event()

    async def Execute(self, request: pb.ExecuteRequest, context: object) -> AsyncIterator[pb.ExecuteResponse]:  # noqa: N802
        yield pb.ExecuteResponse(chunk=pb.TokenChunk(text="first"))
        self.started.set()
        if request.arm_id == "full":
            raise QueueFull("come back", retry_after_s=2)
        if request.arm_id == "broken":
            raise ZeroDivisionError("a secret of ours")
        await self.finish.wait()
        yield pb.ExecuteResponse(chunk=pb.TokenChunk(text="last"))


def service(worker: Worker) -> GrpcService:
    return GrpcService("skyshore.v1.WorkerService", pb_grpc.add_WorkerServiceServicer_to_server, worker)


@pytest.fixture
async def worker() -> Worker:
    return Worker()


async def texts(stub: pb_grpc.WorkerServiceStub, arm_id: str = "") -> list[str]:
    return [reply.chunk.text async for reply in stub.Execute(pb.ExecuteRequest(arm_id=arm_id))]


async def test_a_domain_error_reaches_the_caller_whole(worker: Worker) -> None:
    async with grpc_server([service(worker)], "127.0.0.1:0") as server, grpc.aio.insecure_channel(server.address) as ch:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await texts(pb_grpc.WorkerServiceStub(ch), "full")
    error = status.from_rpc_error(caught.value)
    assert isinstance(error, QueueFull)
    assert (error.message, error.retry_after_s) == ("come back", 2.0)


async def test_an_unexpected_error_does_not_leak_its_words(worker: Worker) -> None:
    async with grpc_server([service(worker)], "127.0.0.1:0") as server, grpc.aio.insecure_channel(server.address) as ch:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await texts(pb_grpc.WorkerServiceStub(ch), "broken")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (caught.value.details() or "")


async def test_reflection_and_health_speak_for_every_service(worker: Worker) -> None:
    async with grpc_server([service(worker)], "127.0.0.1:0") as server, grpc.aio.insecure_channel(server.address) as ch:
        stub = reflection_pb2_grpc.ServerReflectionStub(ch)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        listed = [
            one.name
            async for reply in stub.ServerReflectionInfo(iter([asked]))
            for one in reply.list_services_response.service
        ]
        health = await health_pb2_grpc.HealthStub(ch).Check(
            health_pb2.HealthCheckRequest(service="skyshore.v1.WorkerService")
        )
    assert {"skyshore.v1.WorkerService", "skyshore.v1.MuxService", "grpc.health.v1.Health"} <= set(listed)
    assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_drain_refuses_new_calls_and_finishes_running_ones(worker: Worker) -> None:
    async with grpc_server([service(worker)], "127.0.0.1:0") as server, grpc.aio.insecure_channel(server.address) as ch:
        stub = pb_grpc.WorkerServiceStub(ch)
        running = asyncio.create_task(texts(stub))
        await worker.started.wait()
        draining = asyncio.create_task(server.drain(grace_s=100))
        await asyncio.sleep(0)  # let the drain start

        refused = None
        while refused is not grpc.StatusCode.UNAVAILABLE:  # the server needs a moment to close its port
            late = stub.Execute(pb.ExecuteRequest())
            try:
                await late.read()
                late.cancel()
            except grpc.aio.AioRpcError as error:
                refused = error.code()
        worker.finish.set()

        assert await running == ["first", "last"]
        await draining


async def test_a_drain_ends_at_its_grace_whatever_still_runs(worker: Worker) -> None:
    async with grpc_server([service(worker)], "127.0.0.1:0") as server, grpc.aio.insecure_channel(server.address) as ch:
        running = asyncio.create_task(texts(pb_grpc.WorkerServiceStub(ch)))
        await worker.started.wait()
        async with asyncio.timeout(60):
            await server.drain(grace_s=0.1)
        with pytest.raises(grpc.aio.AioRpcError):
            await running


async def test_a_taken_port_is_an_error_with_its_address() -> None:
    async with grpc_server([], "127.0.0.1:0") as first:
        with pytest.raises(OSError, match=first.address):
            async with grpc_server([], first.address):
                pass
