"""Puts the gateway together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.routing import Route

from gateway import errors, openapi
from gateway.deps import Deps
from gateway.dispatch import Dispatcher
from gateway.fleet import FleetView
from gateway.openai_reply import ChatReply, CompletionReply
from gateway.openai_schema import ChatRequest, CompletionRequest
from gateway.records import RecordWriter
from gateway.routes.fleet import fleet_routes
from gateway.routes.health import health_routes
from gateway.routes.llm import LlmEndpoint


def create_app(deps: Deps) -> FastAPI:
    """The ASGI app on open connections; its lifespan owns the tasks behind it."""
    settings = deps.settings
    records = RecordWriter(deps.store)
    dispatcher = Dispatcher(deps.profiler, deps.scheduler, deps.workers.client, records)
    fleet = FleetView(deps.store, deps.workers)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(records.run())]
            yield
            for task in tasks:
                task.cancel()
        await records.close()

    app = FastAPI(title="Skyshore", description="Inference between shore and sky.", lifespan=lifespan)
    endpoint = partial(
        LlmEndpoint,
        dispatcher=dispatcher,
        origin=settings.gateway_origin,
        max_body_bytes=settings.gateway_max_body_bytes,
    )
    chat, completion = endpoint(ChatRequest, ChatReply), endpoint(CompletionRequest, CompletionReply)
    # First, so that the hot routes are matched before all others.
    app.router.routes.insert(0, Route("/v1/completions", completion, methods=["POST"]))
    app.router.routes.insert(0, Route("/v1/chat/completions", chat, methods=["POST"]))
    app.include_router(fleet_routes(fleet, deps.scheduler, deps.store))
    app.include_router(health_routes(fleet, deps.scheduler, deps.store))
    errors.install(app)
    openapi.install(app)
    return app
