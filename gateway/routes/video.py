"""POST /v1/video/detections: a clip in, a task id out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from gateway.asgi import read_json
from gateway.clips import Clips
from gateway.demands import Demands, new_task_id, read_demands
from gateway.openapi import demand_parameters
from gateway.settings import GatewaySettings
from gateway.uploads import FILE_FIELD, UploadForm, local_clip, refuse_oversize
from gateway.video_schema import VideoFields
from skyshore.domain.errors import InvalidTask
from skyshore.ports import TaskRecord

_FILE = {"type": "string", "format": "binary", "description": "the clip, any container and codec FFmpeg reads"}


def video_routes(clips: Clips, settings: GatewaySettings) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/v1", tags=["video"])

    @router.post(
        "/video/detections",
        status_code=202,
        summary="Find objects in a clip",
        openapi_extra={"requestBody": _documented_body(), "parameters": demand_parameters()},
    )
    async def detections(request: Request) -> JSONResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            refuse_oversize(headers, settings.gateway_max_upload_bytes)

            async def fill(path: Path) -> tuple[VideoFields, Demands]:
                form = UploadForm(headers["content-type"], path, settings.gateway_max_upload_bytes)
                await form.read(request.stream())
                fields = _checked(form.fields)
                return fields, _demands(headers, fields)

            record = await clips.accept_upload(fill)
        elif kind == "application/json":
            body = await read_json(headers, request.receive, settings.gateway_max_body_bytes)
            fields = VideoFields.model_validate_json(body)
            if fields.url is None:
                raise InvalidTask("url is missing: name a file, or upload one as multipart/form-data", param="url")
            demands = _demands(headers, fields)
            path = local_clip(fields.url, settings.gateway_media_root)
            record = await clips.accept(new_task_id(), path, fields, demands)
        else:
            raise InvalidTask(
                f"send multipart/form-data with a field '{FILE_FIELD}', or JSON with a url, not '{kind}'",
                param="content-type",
            )
        return _accepted(record)

    return router


def _checked(fields: dict[str, str]) -> VideoFields:
    # An empty field of a form is one left out.
    return VideoFields.model_validate({name: value for name, value in fields.items() if value != ""})


def _demands(headers: dict[str, str], fields: VideoFields) -> Demands:
    return read_demands(
        headers,
        service_class=fields.service_class,
        deadline_s=fields.deadline_s,
        min_quality=fields.min_quality,
    )


def _accepted(record: TaskRecord) -> JSONResponse:
    address = f"/v1/tasks/{record.task_id}"
    links = {name: f"{address}/{name}" for name in ("events", "result", "annotated.mp4", "contact-sheet.png")}
    body = {"task_id": record.task_id, "state": record.state, "links": {"task": address, **links}}
    return JSONResponse(body, 202, {"location": address, "x-skyshore-task-id": record.task_id})


def _documented_body() -> dict[str, Any]:
    fields = VideoFields.model_json_schema(by_alias=True)
    form = {**fields, "properties": {FILE_FIELD: _FILE, **fields["properties"]}, "required": [FILE_FIELD]}
    form["properties"].pop("url")
    return {
        "required": True,
        "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": fields}},
    }
