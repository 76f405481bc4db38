"""Adds the plain ASGI routes to the OpenAPI document. FastAPI only documents its own routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.llm.openai_schema import ChatRequest, CompletionRequest
from gateway.request_options import CLASS_HEADER, DEADLINE_HEADER, QUALITY_HEADER
from skyshore.domain.task import SERVICE_CLASSES

_ROUTES: dict[str, tuple[type[BaseModel], str]] = {
    "/v1/chat/completions": (ChatRequest, "Answer a conversation, as a stream or complete"),
    "/v1/completions": (CompletionRequest, "Continue a text or token ids, as a stream or complete"),
}
_REF = "#/components/schemas/{model}"
_ERROR_SCHEMA = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
_STATUSES = {
    "400": "the request is wrong; `param` names the field",
    "404": "no live node runs the model",
    "409": "no node can meet the request options",
    "413": "the body is over the limit",
    "429": "every node is full; see Retry-After",
    "503": "no node, or a service is away",
    "504": "the deadline passed",
}


def install(app: FastAPI) -> None:
    """Make `app.openapi()` complete."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the documented extension point of FastAPI


def _complete(schema: dict[str, Any]) -> dict[str, Any]:
    models = [(model, "validation") for model, _ in _ROUTES.values()]
    _, definitions = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    schemas |= definitions["$defs"]
    schemas["Error"] = _ERROR_SCHEMA
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # the error format of FastAPI, which no caller sees
            named = {status: said for status, said in operation["responses"].items() if status[0] in "45"}
            operation["responses"] |= {status: _failure(said["description"]) for status, said in named.items()}
            operation["responses"] |= {status: _failure("see docs/api.md") for status in ("4XX", "5XX")}
    for path, (model, summary) in _ROUTES.items():
        schema["paths"][path] = {"post": _operation(model, summary)}
    return schema


def _operation(model: type[BaseModel], summary: str) -> dict[str, Any]:
    body = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    answer = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {"type": "string"}}}
    return {
        "tags": ["llm"],
        "summary": summary,
        "parameters": option_parameters(),
        "requestBody": {"required": True, "content": body},
        "responses": {"200": {"description": "the answer", "content": answer}}
        | {status: _failure(why) for status, why in _STATUSES.items()},
    }


def _failure(why: str) -> dict[str, Any]:
    return {"description": why, "content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}}


def option_parameters() -> list[dict[str, Any]]:
    """The headers with the request options."""
    classes = {"type": "string", "enum": sorted(SERVICE_CLASSES), "default": "standard"}
    return [
        {"name": CLASS_HEADER, "in": "header", "description": "service class", "schema": classes},
        {"name": DEADLINE_HEADER, "in": "header", "description": "seconds allowed", "schema": {"type": "number"}},
        {"name": QUALITY_HEADER, "in": "header", "description": "minimum quality, 0..1", "schema": {"type": "number"}},
        {"name": "traceparent", "in": "header", "description": "W3C trace context", "schema": {"type": "string"}},
    ]
