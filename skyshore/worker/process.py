"""The main function of a node process: engines, server, registration, shutdown."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from skyshore.adapters.redis_store import RedisStore
from skyshore.catalogue.errors import NotFetched
from skyshore.domain.node import Node, Tier
from skyshore.runtime import telemetry
from skyshore.runtime.listen import check_listen
from skyshore.runtime.process import run_process
from skyshore.runtime.serve import GrpcService, grpc_server, stop_signal
from skyshore.v1 import worker_service_pb2_grpc
from skyshore.worker.engines import EngineSet, StartEngines, start_emulated
from skyshore.worker.executor import WorkerExecutor
from skyshore.worker.registration import registered
from skyshore.worker.servicer import SERVICE, WorkerServicer
from skyshore.worker.settings import NodeSettings

log = structlog.get_logger()


async def serve_node(settings: NodeSettings, tier: Tier, start: StartEngines) -> None:
    """Serve until SIGTERM or SIGINT. Then reject new tasks, finish running ones, deregister and close everything.

    Raises:
        NotFetched: a model is missing and no fallback is allowed.
        ProfileError: the settings name a profile or a model that cannot be used.
        OSError: the address is in use, or the energy meter of the settings does not work here.
    """
    check_listen(settings.listen, allow_wider=settings.allow_wider_listen)
    telemetry.serve_metrics(settings.metrics_port, settings.listen)
    async with AsyncExitStack() as stack:
        store = RedisStore(settings.redis_url)
        stack.push_async_callback(store.close)
        engines = await _start(settings, start, stack)
        executor = WorkerExecutor(settings.id, engines.served, engines.meter, engines.idle_watts * settings.time_scale)
        service = GrpcService(
            SERVICE, worker_service_pb2_grpc.add_WorkerServiceServicer_to_server, WorkerServicer(executor)
        )
        server = await stack.enter_async_context(grpc_server([service], settings.listen))
        node = _node(settings, tier, engines, server.address)
        registration = await stack.enter_async_context(registered(node, executor.report, store))
        await stop_signal()
        log.info("draining", grace_s=settings.grace_s)
        executor.draining = True
        async with asyncio.TaskGroup() as group:  # does not wait for a store that is away
            group.create_task(registration.announce_draining(), name="draining")
            await server.drain(settings.grace_s)


def main(read_settings: Callable[[], NodeSettings], tier: Tier, starters: dict[str, StartEngines]) -> int:
    """The main function of a node. Returns the exit status."""
    return run_process(
        lambda settings: settings.id,
        read_settings,
        lambda settings: serve_node(settings, tier, starters[settings.engine]),
    )


async def _start(settings: NodeSettings, start: StartEngines, stack: AsyncExitStack) -> EngineSet:
    try:
        return await start(settings, stack)
    except NotFetched as error:
        if settings.fallback != "emulated":
            raise
        log.warning("models missing; this node runs EMULATED and its answers are invented", why=str(error))
        return await start_emulated(settings, stack)


def _node(settings: NodeSettings, tier: Tier, engines: EngineSet, address: str) -> Node:
    return Node(
        node_id=settings.id,
        tier=tier,
        address=settings.advertise or address,
        arms=tuple(each.arm for each in engines.served),
        idle_watts=engines.idle_watts,
        engine=engines.name,
        incarnation=uuid.uuid4().hex,
    )
