"""/health, /ready, /metrics: for process supervisors and Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway.deps import PolicyClient
from gateway.fleet import FleetView
from skyshore.domain.errors import NodeUnavailable, SkyshoreError
from skyshore.domain.llm import LlmInput, Sampling
from skyshore.domain.task import Task, TaskKind
from skyshore.ports import ProfilerClient, StateStore

PROBE_TIMEOUT_S = 2.0


PROBE = LlmInput(prompt="ready?", sampling=Sampling(max_tokens=1))
"""What the profiler is asked to profile, as it is for every request."""


def health_routes(fleet: FleetView, scheduler: PolicyClient, profiler: ProfilerClient, store: StateStore) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["health"])

    @router.head("/health", include_in_schema=False)
    @router.get("/health", summary="The process runs")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready", summary="Whether requests can be answered, and what is missing")
    async def ready(response: Response) -> dict[str, object]:
        probe = Task("ready", TaskKind.LLM, deadline_s=PROBE_TIMEOUT_S)
        checks = {
            "store": store.ping(),
            "scheduler": scheduler.policy(),
            "profiler": profiler.profile_llm(probe, PROBE),
            "nodes": _check_nodes(fleet),
        }
        missing = dict(zip(checks, await asyncio.gather(*map(_problem, checks.values())), strict=True))
        missing = {name: why for name, why in missing.items() if why}
        response.status_code = 503 if missing else 200
        return {"ready": not missing, "missing": missing}

    @router.head("/metrics", include_in_schema=False)
    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _check_nodes(fleet: FleetView) -> None:
    if not await fleet.nodes():
        raise NodeUnavailable("no node is registered; start one")


async def _problem(check: Awaitable[object]) -> str:
    """Why a check fails; empty if it succeeds."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await check
    except SkyshoreError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {PROBE_TIMEOUT_S:g} s"
    return ""
