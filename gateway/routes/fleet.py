"""/v1/models, /v1/nodes, /v1/policy, /v1/decisions: the fleet and its policy."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from gateway.asgi import read_json
from gateway.breaker import NodeBreakers
from gateway.deps import PolicyClient
from gateway.fleet import FleetView
from skyshore.domain.errors import NotFound
from skyshore.domain.task import TaskKind
from skyshore.ports import StateStore

POLICY_BODY_BYTES = 4096


class PolicyChoice(BaseModel):
    """Body of PUT /v1/policy."""

    policy: str = Field(min_length=1, max_length=64)


def fleet_routes(fleet: FleetView, scheduler: PolicyClient, store: StateStore, breakers: NodeBreakers) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1", tags=["fleet"])

    @router.get("/models", summary="Models that the live nodes serve")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": await _models(fleet)}

    @router.get("/models/{model}", summary="One model")
    async def model(model: str) -> dict[str, Any]:
        found = [entry for entry in await _models(fleet) if entry["id"] == model]
        if not found:
            raise NotFound(f"no live node serves model '{model}'; see /v1/models", param="model")
        return found[0]

    @router.get("/nodes", summary="Live nodes, their arms and their newest heartbeat")
    async def nodes() -> dict[str, Any]:
        now_s = time.monotonic()
        return {
            "nodes": [
                {**asdict(node), "status": asdict(status), "breaker": breakers.state(node.node_id, now_s)}
                for node, status in await fleet.nodes()
            ]
        }

    @router.get("/policy", summary="The active policy")
    async def policy() -> dict[str, Any]:
        name, available = await scheduler.policy()
        return {"policy": name, "available": available}

    @router.put("/policy", summary="Change the active policy", openapi_extra=_policy_body())
    async def set_policy(request: Request) -> dict[str, Any]:
        # Not read by FastAPI, which would read a body of any size.
        body = await read_json(request.headers, request.receive, POLICY_BODY_BYTES)
        await scheduler.set_policy(PolicyChoice.model_validate_json(body).policy)
        return await policy()

    @router.get("/decisions", summary="The newest placements, newest first")
    async def decisions(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> dict[str, Any]:
        return {"decisions": [asdict(record) for record in await store.decisions(limit)]}

    return router


def _policy_body() -> dict[str, Any]:
    content = {"application/json": {"schema": PolicyChoice.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


async def _models(fleet: FleetView) -> list[dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for node, _ in await fleet.nodes():
        for arm in node.arms:
            entry = entries.setdefault(
                arm.model,
                {
                    "id": arm.model,
                    "object": "model",
                    "created": 0,
                    "owned_by": "skyshore",
                    "kind": arm.kind,
                    "max_model_len": arm.context_tokens if arm.kind is TaskKind.LLM else None,
                    "nodes": [],
                },
            )
            if node.node_id not in entry["nodes"]:
                entry["nodes"].append(node.node_id)
    return [entries[name] for name in sorted(entries)]
