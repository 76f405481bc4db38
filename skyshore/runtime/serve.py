"""How every gRPC process serves and stops: health, reflection, the mux, and draining."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from skyshore.mux.grpc_options import SERVER_OPTIONS
from skyshore.mux.server import MethodTable, MuxServicer
from skyshore.runtime.interceptors import ErrorInterceptor
from skyshore.v1 import mux_service_pb2_grpc

log = structlog.get_logger()


class GrpcService(NamedTuple):
    """One service of a process."""

    name: str
    """Full name, `skyshore.v1.WorkerService`."""
    add: Callable[[Any, Any], None]
    """The generated `add_XServicer_to_server`."""
    servicer: object


class RunningServer:
    """A started server. `address` is host:port with the real port."""

    def __init__(
        self, server: grpc.aio.Server, health: health_aio.HealthServicer, mux: MuxServicer, host: str, port: int
    ) -> None:
        self._server, self._health, self._mux = server, health, mux
        self.port = port
        self.address = f"{host}:{port}"

    async def set_serving(self, name: str, serving: bool) -> None:
        """Set the health status of one service. The empty name means the process."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(name, state)

    async def drain(self, grace_s: float) -> None:
        """Report NOT_SERVING, reject new calls, let running ones finish within `grace_s`, then cancel them."""
        await self._health.enter_graceful_shutdown()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + grace_s
        # Plain calls and muxed calls drain concurrently. The stream of the mux ends after its calls.
        async with asyncio.TaskGroup() as draining:
            draining.create_task(self._mux.drain(grace_s))
            draining.create_task(self._server.stop(max(0.0, end_s - loop.time())))


@asynccontextmanager
async def grpc_server(services: Sequence[GrpcService], listen: str) -> AsyncIterator[RunningServer]:
    """Serve `services` on `listen` (host:port, port 0 picks a free one) until the block ends.

    Raises:
        OSError: the address is in use or does not belong to this machine.
    """
    server = grpc.aio.server(interceptors=(ErrorInterceptor(),), options=SERVER_OPTIONS)
    table, health = MethodTable(), health_aio.HealthServicer()
    mux = MuxServicer(table)
    for service in services:
        service.add(service.servicer, server)
        service.add(service.servicer, table)
    mux_service_pb2_grpc.add_MuxServiceServicer_to_server(mux, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = [service.name for service in services]
    reflection.enable_server_reflection(
        [*names, "skyshore.v1.MuxService", "grpc.health.v1.Health", reflection.SERVICE_NAME], server
    )
    host = listen.rpartition(":")[0]
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {listen}: another process may use it") from error
    running = RunningServer(server, health, mux, host, port)
    await server.start()
    for name in ("", *names):
        await running.set_serving(name, True)
    log.info("serving", address=running.address, services=names)
    try:
        yield running
    finally:
        await running.drain(0.0)


async def stop_signal() -> None:
    """Wait for the first SIGTERM or SIGINT. A second signal has its default effect and ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
