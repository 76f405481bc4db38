"""Starts and stops the parts of the scheduler process in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from services.scheduler.journal import Journal
from services.scheduler.loop import SchedulerLoop
from services.scheduler.servicer import SchedulerServicer
from services.scheduler.settings import SchedulerSettings
from skyshore.adapters.redis_store import RedisStore
from skyshore.ports import StateStore
from skyshore.runtime.endure import until_done
from skyshore.runtime.listen import check_listen
from skyshore.runtime.serve import GrpcService, RunningServer, grpc_server, stop_signal
from skyshore.runtime.telemetry import serve_metrics
from skyshore.scheduling.core import CoreSettings, SchedulerCore
from skyshore.v1.scheduler_service_pb2_grpc import add_SchedulerServiceServicer_to_server

log = structlog.get_logger()

SERVICE = "skyshore.v1.SchedulerService"
STORE_WITHIN_S = 15.0
"""Longest wait for the state store before it serves; a launcher starts both at once."""


@asynccontextmanager
async def scheduler(settings: SchedulerSettings, store: StateStore) -> AsyncIterator[RunningServer]:
    """A serving scheduler on an open store.

    Raises:
        NotFound: no policy of the name set.
        OSError: the address is taken.
    """
    core_settings = CoreSettings(
        policy=settings.scheduler_policy,
        seed=settings.scheduler_seed,
        policy_settings=settings.scheduler_policy_settings,
    )
    core = SchedulerCore(core_settings)
    loop = SchedulerLoop(core, store, Journal(store, settings.scheduler_event_log, core_settings), time.time)
    with suppress(TimeoutError):  # without the store it serves without nodes, until `run` has read them
        async with asyncio.timeout(STORE_WITHIN_S):
            await until_done("saved state", loop.start)
    service = GrpcService(SERVICE, add_SchedulerServiceServicer_to_server, SchedulerServicer(loop))
    async with asyncio.TaskGroup() as group:  # an error in the loop ends the process
        running = group.create_task(loop.run())
        async with grpc_server([service], settings.scheduler_listen) as server:
            yield server
            await server.drain(settings.scheduler_drain_s)
        running.cancel()


async def serve(settings: SchedulerSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    check_listen(settings.scheduler_listen, allow_wider=settings.allow_wider_listen)
    serve_metrics(settings.scheduler_metrics_port, settings.scheduler_listen)
    store = RedisStore(settings.redis_url)
    try:
        async with scheduler(settings, store):
            await stop_signal()
            log.info("draining")
    finally:
        await store.close()
