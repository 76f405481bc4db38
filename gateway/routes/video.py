"""POST /v1/video/…: accepts a clip; answers with its task id, or with the result if the caller waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import grpc
from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, JSONResponse, Response

from gateway.asgi import read_json
from gateway.openapi import option_parameters
from gateway.request_options import RequestOptions, new_task_id, read_request_options
from gateway.settings import GatewaySettings
from gateway.video.clips import ClipStore
from gateway.video.disk_room import Claim
from gateway.video.schema import ClassifyFields, ClipFields, DetectFields
from gateway.video.uploads import FILE_FIELD, UploadForm, expected_bytes, local_clip, refuse_oversize
from skyshore.domain.errors import InvalidTask, TaskEnded
from skyshore.domain.job import ENDED, TaskRecord, TaskState
from skyshore.domain.task import ServiceClass, TaskKind
from skyshore.ports import StateStore
from skyshore.wire.status import to_domain

MAX_WAIT_S = 60.0
POLL_S = 0.02
_FILE = {"type": "string", "format": "binary", "description": "the clip, any container and codec FFmpeg reads"}
_Wait = Annotated[
    float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for the result; 202 if it is not ready by then")
]
_LINKS = {
    TaskKind.VIDEO_DETECT: ("events", "result", "annotated.mp4", "contact-sheet.png"),
    TaskKind.VIDEO_CLASSIFY: ("events", "result"),
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "the result, if the caller waited for it"},
    202: {"description": "accepted: id and links of the task"},
}


def video_routes(store: StateStore, clips: ClipStore, settings: GatewaySettings) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/video", tags=["video"])

    async def accept(request: Request, kind: TaskKind, fields_type: type[ClipFields]) -> TaskRecord:
        headers = {name.lower(): value for name, value in request.headers.items()}
        caller = _caller(request)
        form = headers.get("content-type", "").partition(";")[0].strip().lower()
        if form == "multipart/form-data":
            refuse_oversize(headers, settings.gateway_max_upload_bytes)

            async def fill(claim: Claim) -> tuple[ClipFields, RequestOptions]:
                limit_bytes = settings.gateway_max_upload_bytes
                upload = UploadForm(headers["content-type"], claim.path, limit_bytes, claim.check)
                await upload.read(request.stream())
                # An empty form field counts as absent.
                fields = fields_type.model_validate({k: v for k, v in upload.fields.items() if v != ""})
                return fields, _options(headers, fields, settings.service_classes)

            return await clips.accept_upload(kind, caller, expected_bytes(headers), fill)
        if form == "application/json":
            body = await read_json(headers, request.receive, settings.gateway_max_body_bytes)
            fields = fields_type.model_validate_json(body)
            if fields.url is None:
                raise InvalidTask("url is missing: give one, or upload a file as multipart/form-data", param="url")
            options = _options(headers, fields, settings.service_classes)
            path = local_clip(fields.url, settings.gateway_media_root)
            return await clips.accept(kind, new_task_id(), path, fields, options, caller=caller)
        raise InvalidTask(
            f"send multipart/form-data with a field '{FILE_FIELD}', or JSON with a url, not '{form}'",
            param="content-type",
        )

    @router.post(
        "/detections",
        status_code=202,
        summary="Find objects in a clip",
        response_model=None,
        responses=_RESPONSES,
        openapi_extra={"requestBody": _documented_body(DetectFields), "parameters": option_parameters()},
    )
    async def detections(request: Request, wait: _Wait = 0.0) -> Response:
        record = await accept(request, TaskKind.VIDEO_DETECT, DetectFields)
        return await _answer(store, record, request, wait)

    @router.post(
        "/classifications",
        status_code=202,
        summary="Classify a clip",
        response_model=None,
        responses=_RESPONSES,
        openapi_extra={"requestBody": _documented_body(ClassifyFields), "parameters": option_parameters()},
    )
    async def classifications(request: Request, wait: _Wait = 0.0) -> Response:
        record = await accept(request, TaskKind.VIDEO_CLASSIFY, ClassifyFields)
        return await _answer(store, record, request, wait)

    return router


def _caller(request: Request) -> str:
    """Whose quota an upload uses: the client's address, as long as callers have no keys."""
    return request.client.host if request.client else ""


def _options(headers: dict[str, str], fields: ClipFields, classes: Mapping[str, ServiceClass]) -> RequestOptions:
    return read_request_options(
        headers,
        service_class=fields.service_class,
        deadline_s=fields.deadline_s,
        min_quality=fields.min_quality,
        classes=classes,
    )


async def _answer(store: StateStore, record: TaskRecord, request: Request, wait_s: float) -> Response:
    """The result if it is ready within `wait_s`, else the links to it. Raises the error of a failed task."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + wait_s
    while record.state not in ENDED and loop.time() < ends_s:
        await asyncio.sleep(POLL_S)
        if await request.is_disconnected():
            break  # the job continues without its caller
        record = await store.task(record.task_id) or record
    if record.state is TaskState.FAILED:
        raise to_domain(grpc.StatusCode.INTERNAL, record.error, word=record.error_code)
    if record.state is TaskState.CANCELLED:
        raise TaskEnded("the task was cancelled while its result was awaited")
    address = f"/v1/tasks/{record.task_id}"
    headers = {"location": address, "x-skyshore-task-id": record.task_id}
    if record.state is TaskState.DONE:
        return FileResponse(record.result_path, media_type="application/json", headers=headers)
    links = {name: f"{address}/{name}" for name in _LINKS[TaskKind(record.kind)]}
    body = {"task_id": record.task_id, "state": record.state, "links": {"task": address, **links}}
    return JSONResponse(body, 202, headers)


def _documented_body(fields_type: type[ClipFields]) -> dict[str, Any]:
    fields = fields_type.model_json_schema(by_alias=True)
    form = {**fields, "properties": {FILE_FIELD: _FILE, **fields["properties"]}, "required": [FILE_FIELD]}
    form["properties"].pop("url")
    return {
        "required": True,
        "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": fields}},
    }
