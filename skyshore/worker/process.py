"""The life of a node process: engines, server, registration, and an orderly end."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog
from pydantic import ValidationError

from skyshore.adapters.redis_store import RedisStore
from skyshore.catalogue.errors import NotFetched
from skyshore.domain.errors import SkyshoreError
from skyshore.domain.node import Node, Tier
from skyshore.nodemodel.document import ProfileError
from skyshore.runtime import logs, telemetry
from skyshore.runtime.serve import GrpcService, grpc_server, run, stop_signal
from skyshore.v1 import worker_service_pb2_grpc
from skyshore.worker.desk import Desk
from skyshore.worker.engines import EngineSet, StartEngines, start_emulated
from skyshore.worker.registration import registered
from skyshore.worker.servicer import SERVICE, WorkerServicer
from skyshore.worker.settings import NodeSettings

log = structlog.get_logger()


async def serve_node(settings: NodeSettings, tier: Tier, start: StartEngines) -> None:
    """Serve until SIGTERM or SIGINT, then drain: refuse, finish, leave the registry, close in reverse order.

    Raises:
        NotFetched: a model is missing and no fallback is allowed.
        ProfileError: the settings name a profile or a model that cannot be used.
        OSError: the address is taken, or the energy meter asked for is not there.
    """
    async with AsyncExitStack() as stack:
        store = RedisStore(settings.redis_url)
        stack.push_async_callback(store.close)
        engines = await _start(settings, start, stack)
        desk = Desk(settings.id, engines.offers, engines.meter, engines.idle_watts * settings.time_scale)
        service = GrpcService(
            SERVICE, worker_service_pb2_grpc.add_WorkerServiceServicer_to_server, WorkerServicer(desk)
        )
        server = await stack.enter_async_context(grpc_server([service], settings.listen))
        node = _node(settings, tier, engines, server.address)
        registration = await stack.enter_async_context(registered(node, desk.report, store))
        await stop_signal()
        log.info("draining", grace_s=settings.grace_s)
        desk.draining = True
        await registration.renew()
        await server.drain(settings.grace_s)


def main(read_settings: Callable[[], NodeSettings], tier: Tier, starters: dict[str, StartEngines]) -> int:
    """Read the settings, run the process, and put what went wrong into one plain sentence. Returns the exit status."""
    try:
        settings = read_settings()
    except ValidationError as error:
        return _fail("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    logs.configure(settings.id, settings.log_level, as_json=settings.log_json)
    telemetry.serve_metrics(settings.metrics_port, settings.listen)
    try:
        run(serve_node(settings, tier, starters[settings.engine]))
    except (SkyshoreError, ProfileError, OSError) as error:
        return _fail(str(error))
    return 0


async def _start(settings: NodeSettings, start: StartEngines, stack: AsyncExitStack) -> EngineSet:
    try:
        return await start(settings, stack)
    except NotFetched as error:
        if settings.fallback != "emulated":
            raise
        log.warning("models missing; this node runs EMULATED, answers are invented", why=str(error))
        return await start_emulated(settings, stack)


def _node(settings: NodeSettings, tier: Tier, engines: EngineSet, address: str) -> Node:
    return Node(
        node_id=settings.id,
        tier=tier,
        address=settings.advertise or address,
        arms=tuple(offer.arm for offer in engines.offers),
        idle_watts=engines.idle_watts,
        engine=engines.name,
        incarnation=uuid.uuid4().hex,
    )


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
