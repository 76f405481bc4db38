"""Starts the profiler process and stops it in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import structlog

from services.profiler.profiler import TaskProfiler
from services.profiler.servicer import ProfilerServicer
from services.profiler.settings import ProfilerSettings
from services.profiler.tokens import ByteEstimate, PromptTokenizer
from skyshore.adapters.redis_store import RedisStore
from skyshore.adapters.tokenizer import Tokenizer
from skyshore.catalogue.errors import NotFetched
from skyshore.catalogue.store import ready
from skyshore.domain.errors import NotFound
from skyshore.ports import StateStore
from skyshore.profiling.preference import PreferenceNetwork, PreferencePredictor
from skyshore.runtime.endure import for_ever
from skyshore.runtime.listen import check_listen
from skyshore.runtime.serve import GrpcService, RunningServer, grpc_server, stop_signal
from skyshore.runtime.telemetry import serve_metrics
from skyshore.v1.profiler_service_pb2_grpc import add_ProfilerServiceServicer_to_server

log = structlog.get_logger()

SERVICE = "skyshore.v1.ProfilerService"
OUTCOMES_AT_ONCE = 500


@asynccontextmanager
async def profiler(
    settings: ProfilerSettings, store: StateStore, tokenizer: PromptTokenizer
) -> AsyncIterator[RunningServer]:
    """Serve a profiler inside the block. Raises OSError when the address is in use."""
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="profile") as executor:
        profiling = TaskProfiler(tokenizer, executor, PreferencePredictor(PreferenceNetwork.shipped()))
        service = GrpcService(SERVICE, add_ProfilerServiceServicer_to_server, ProfilerServicer(profiling))
        async with asyncio.TaskGroup() as group:
            learning = group.create_task(learn(profiling, store))
            async with grpc_server([service], settings.profiler_listen) as server:
                yield server
                await server.drain(settings.profiler_drain_s)
            learning.cancel()


async def learn(profiling: TaskProfiler, store: StateStore) -> None:
    """Learn from the outcome stream until cancelled. While the store is away, profiles use the earlier state."""
    cursor = "$"

    async def read() -> None:
        nonlocal cursor
        cursor, outcomes = await store.read_outcomes(cursor, OUTCOMES_AT_ONCE, block_s=2.0)
        for outcome in outcomes:
            profiling.learn(outcome)

    await for_ever("outcomes", read)


def load_tokenizer(model: str) -> PromptTokenizer:
    """The tokenizer of a fetched model. If it is not fetched: `ByteEstimate`, with a warning."""
    try:
        return Tokenizer.open(ready(model))
    except (NotFetched, NotFound) as error:
        log.warning("prompt tokens are estimated as one per four bytes", model=model, why=str(error))
        return ByteEstimate()


async def serve(settings: ProfilerSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    check_listen(settings.profiler_listen, allow_wider=settings.allow_wider_listen)
    serve_metrics(settings.profiler_metrics_port, settings.profiler_listen)
    tokenizer = load_tokenizer(settings.profiler_model)
    store = RedisStore(settings.redis_url)
    try:
        async with profiler(settings, store, tokenizer):
            await stop_signal()
            log.info("draining")
    finally:
        await store.close()
