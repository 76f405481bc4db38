"""/v1/tasks/{id}: state, progress and results of a task."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query
from starlette.responses import FileResponse, PlainTextResponse, Response

from gateway.sse import EventStream, EventStreamResponse
from gateway.video.cancel import JobCancellation
from gateway.video.clips import ClipStore
from skyshore.domain.errors import NotFound
from skyshore.domain.job import ENDED, TaskRecord, TaskState
from skyshore.domain.task import TaskKind
from skyshore.ports import StateStore

POLL_S = 0.25
Format = Annotated[Literal["json", "mot"], Query(description="`mot` is MOT text, which has no classes: see `label`")]


_CANCEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "cancelled now or before; nothing of it is kept but this record"},
    404: {"description": "no such task"},
    409: {"description": "the task is done or failed"},
}


def task_routes(store: StateStore, clips: ClipStore, cancellation: JobCancellation) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

    async def find(task_id: str) -> TaskRecord:
        record = await store.task(task_id)
        if record is None:
            raise NotFound(f"no task '{task_id}'; records are kept for a day", param="task_id")
        return record

    async def finished(task_id: str) -> TaskRecord:
        return _with_result(await find(task_id))

    async def finished_detection(task_id: str) -> TaskRecord:
        record = await finished(task_id)
        if record.kind != TaskKind.VIDEO_DETECT:
            raise NotFound("a classified clip has labels, not boxes; see /result", param="task_id")
        return record

    @router.get("/{task_id}", summary="State, progress, nodes, error")
    async def task(task_id: str) -> dict[str, Any]:
        return shown(await find(task_id))

    @router.delete("/{task_id}", summary="Cancel a clip that waits or runs", responses=_CANCEL_RESPONSES)
    async def cancel(task_id: str) -> dict[str, Any]:
        return shown(await cancellation.cancel(task_id))

    @router.get("/{task_id}/events", summary="Server-sent events until the task has ended")
    async def events(task_id: str) -> EventStreamResponse:
        first = await find(task_id)
        return EventStreamResponse(lambda events: _follow(store, first, events))

    @router.get(
        "/{task_id}/result", summary="Boxes of every processed frame, or the labels of a clip", response_model=None
    )
    async def result(task_id: str, format: Format = "json", label: str = "") -> Response:
        if format == "mot":
            text = await clips.mot_text(await finished_detection(task_id), label)
            return PlainTextResponse(text, headers={"x-skyshore-task-id": task_id})
        record = await finished(task_id)
        return await _file(Path(record.result_path), "application/json", task_id)

    @router.get("/{task_id}/annotated.mp4", summary="The clip with its boxes drawn on it")
    async def annotated(task_id: str) -> FileResponse:
        record = await finished_detection(task_id)
        return await _file(await clips.annotated(record), "video/mp4", task_id)

    @router.get("/{task_id}/contact-sheet.png", summary="Some frames with their boxes, as one picture")
    async def contact_sheet(task_id: str) -> FileResponse:
        record = await finished_detection(task_id)
        return await _file(await clips.contact_sheet(record), "image/png", task_id)

    return router


def _with_result(record: TaskRecord) -> TaskRecord:
    if record.kind == TaskKind.LLM:
        raise NotFound("the answer was sent to its caller and is not kept", param="task_id")
    if record.state is TaskState.FAILED:
        raise NotFound(f"the task failed: {record.error} ({record.error_code})", param="task_id")
    if record.state is TaskState.CANCELLED:
        raise NotFound("the task was cancelled", param="task_id")
    if record.state is not TaskState.DONE:
        raise NotFound(f"the task is {record.state}; follow /events", param="task_id", retry_after_s=1.0)
    return record


async def _file(path: Path, media_type: str, task_id: str) -> FileResponse:
    if not await asyncio.to_thread(path.is_file):
        raise NotFound(f"the files of task '{task_id}' are no longer kept", param="task_id")
    return FileResponse(path, media_type=media_type, headers={"x-skyshore-task-id": task_id})


def shown(record: TaskRecord) -> dict[str, Any]:
    """A record as callers see it, without the paths of the server."""
    failure = {"code": record.error_code, "message": record.error} if record.error_code else None
    return {
        "task_id": record.task_id,
        "kind": record.kind,
        "state": record.state,
        "progress": round(record.progress, 4),
        "created_at_s": record.created_at_s,
        "updated_at_s": record.updated_at_s,
        "nodes": record.node_ids,
        "error": failure,
    }


async def _follow(store: StateStore, record: TaskRecord, events: EventStream) -> None:
    """Write an event at every change until the task has ended."""
    last: dict[str, Any] = {}
    while True:
        now = shown(record)
        if now != last:
            last = now
            await events.event(orjson.dumps(now), "task")
        if record.state in ENDED:
            return
        await asyncio.sleep(POLL_S)
        record = await store.task(record.task_id) or record
