"""Every error response has the form of OpenAI's API: `{"error": {"message", "type", "code", "param"}}`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from skyshore.domain.errors import Internal, InvalidTask, SkyshoreError
from skyshore.runtime.disk import as_disk_error
from skyshore.wire.status import http_status

log = structlog.get_logger()


class CallerGone(Exception):
    """The caller closed the connection: no response can be sent."""


_TYPES = {403: "permission_error", 404: "not_found_error", 429: "rate_limit_error", 504: "timeout_error"}


def error_object(error: SkyshoreError) -> dict[str, Any]:
    """The JSON body of an error response."""
    status = http_status(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": error.message, "type": kind, "code": error.code, "param": error.param}}


def error_headers(error: SkyshoreError) -> dict[str, str]:
    """The Retry-After header in whole seconds, for errors where a retry may help."""
    if error.retry_after_s is None:
        return {}
    return {"retry-after": str(max(1, math.ceil(error.retry_after_s)))}


def as_domain(error: Exception) -> SkyshoreError:
    """`error` if it is a domain error, else one that a caller may see. Unexpected errors are logged."""
    if isinstance(error, SkyshoreError):
        return error
    if isinstance(error, RequestValidationError | ValidationError):
        return invalid_task(error.errors())
    if failure := as_disk_error(error):
        log.error("the disk failed", exc_info=error)
        return failure
    log.error("unhandled error", exc_info=error)
    return Internal("internal error; the gateway's log has the details")


def invalid_task(problems: Sequence[Any]) -> InvalidTask:
    """Pydantic's problem with the first wrong field, as one sentence."""
    # A field with several allowed forms has one problem for each form. The deepest one fits what the caller meant.
    same_field = [problem for problem in problems if problem["loc"][:1] == problems[0]["loc"][:1]]
    first = max(same_field, key=lambda problem: len(problem["loc"]))
    # The path also names the form (`str`, `list[...]`). A caller knows only fields and positions.
    path = [str(part) for part in first["loc"] if isinstance(part, int) or _is_field(str(part))]
    if path and path[0] in ("body", "query", "path", "header"):
        path = path[1:]
    where = ".".join(path)
    if first["type"] == "too_long" and first["ctx"]["max_length"] == 0:
        return InvalidTask(f"{where} is not supported; leave it out", param=where)
    if first["type"] in ("json_invalid", "json_type"):
        return InvalidTask(f"the body is not valid JSON: {first['msg']}")
    return InvalidTask(f"{where or 'the body'}: {first['msg']}", param=where or None)


def _is_field(part: str) -> bool:
    return part.isidentifier() and part not in ("str", "int", "float", "bool")


def refuse(error: SkyshoreError) -> Response:
    """The response that says why."""
    return Response(orjson.dumps(error_object(error)), http_status(error), error_headers(error), "application/json")


def install(app: FastAPI) -> None:
    """Answer every exception of every route with `error_object`."""

    async def on_failure(request: Request, error: Exception) -> Response:
        return refuse(as_domain(error))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        word = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        message = {
            404: f"there is no path {request.url.path}; /docs lists all paths",
            405: f"{request.url.path} does not allow {request.method}; /docs lists the allowed methods",
        }.get(error.status_code, str(error.detail))
        kind = _TYPES.get(error.status_code, "invalid_request_error")
        body = {"message": message, "type": kind, "code": word, "param": None}
        return Response(orjson.dumps({"error": body}), error.status_code, error.headers, "application/json")

    async def on_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # no one reads it; proxies log this number for a closed connection

    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(CallerGone, on_gone)
    app.add_exception_handler(SkyshoreError, on_failure)
    app.add_exception_handler(ValidationError, on_failure)
    app.add_exception_handler(RequestValidationError, on_failure)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_failure)
