"""Accepts clips and hands out what became of them: the files behind `/v1/video` and `/v1/tasks`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from gateway.request_options import RequestOptions, new_task_id
from gateway.video.schema import ClipFacts, ClipFields, VideoJob
from gateway.video.uploads import FILE_FIELD
from skyshore.domain.errors import InvalidMedia, NotFound
from skyshore.domain.job import TaskRecord
from skyshore.domain.task import TaskKind
from skyshore.domain.video import Detection
from skyshore.ports import StateStore
from skyshore.workload.annotations import write_mot

log = structlog.get_logger()

KEEP_S = 25 * 3600.0
"""Files outlive the records that name them (a day) by an hour."""
SWEEP_EVERY_S = 3600.0


class Clips:
    """Uploads, results and annotated clips under one folder."""

    def __init__(self, store: StateStore, folder: Path) -> None:
        self._store = store
        self._uploads, self.results = folder / "uploads", folder / "results"
        self._annotating = asyncio.Lock()

    def make_folders(self) -> None:
        """Create what is missing."""
        for folder in (self._uploads, self.results):
            folder.mkdir(parents=True, exist_ok=True)

    async def accept_upload(
        self, kind: TaskKind, fill: Callable[[Path], Awaitable[tuple[ClipFields, RequestOptions]]]
    ) -> TaskRecord:
        """Let `fill` write the clip, then accept it. Nothing is left of a clip that is refused.

        Raises:
            InvalidMedia: no clip that can be worked on.
            NodeUnavailable: the state store is away.
        """
        await self._store.ping()  # before a gigabyte comes in for nothing
        task_id = new_task_id()
        path = self._uploads / task_id
        try:
            fields, options = await fill(path)
            return await self.accept(kind, task_id, path, fields, options)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, InvalidMedia):  # the name of our copy tells the caller nothing
                raise InvalidMedia(error.message.replace(path.name, "the upload"), param=FILE_FIELD) from error
            raise

    async def accept(
        self, kind: TaskKind, task_id: str, path: Path, fields: ClipFields, options: RequestOptions
    ) -> TaskRecord:
        """Check a clip on disk and make it a job; durable when this returns. Raises as `accept_upload`."""
        from gateway.video import clip_work  # noqa: PLC0415 - see DetectionJobs.run

        facts = await asyncio.to_thread(clip_work.probe, path)
        job = VideoJob(
            task_id=task_id,
            path=str(path),
            facts=facts,
            created_at_s=time.time(),
            kind=kind,
            service_class=options.service_class,
            deadline_s=options.deadline_s,
            min_quality=options.min_quality,
            traceparent=options.traceparent,
            **fields.wishes(),
        )
        record = job.record()
        await self._store.accept_job(record, job.model_dump_json().encode())
        return record

    async def annotated(self, record: TaskRecord) -> Path:
        """The clip with its boxes, made when first asked for. Raises NotFound when its files are gone."""
        from gateway.video import clip_work  # noqa: PLC0415 - see DetectionJobs.run

        return await self._drawn(record, "mp4", clip_work.annotate)

    async def contact_sheet(self, record: TaskRecord) -> Path:
        """Some of its frames with their boxes, as a PNG; otherwise as `annotated`."""
        from gateway.video import clip_work  # noqa: PLC0415 - see DetectionJobs.run

        return await self._drawn(record, "png", clip_work.contact_sheet)

    async def mot_text(self, record: TaskRecord, label: str) -> str:
        """The boxes of one class, or of all with an empty label, as MOT text. Raises NotFound as `annotated`."""
        result = Path(record.result_path)
        if not await asyncio.to_thread(result.is_file):
            raise NotFound(f"the files of task '{record.task_id}' are no longer kept")
        return await asyncio.to_thread(_mot, result, label)

    async def _drawn(
        self,
        record: TaskRecord,
        suffix: str,
        make: Callable[[Path, ClipFacts, Mapping[int, list[Detection]], Path], None],
    ) -> Path:
        target = self.results / f"{record.task_id}.{suffix}"
        result = Path(record.result_path)
        clip = Path((record.detail or {}).get("path", ""))
        async with self._annotating:  # one at a time: it takes a whole core
            if not await asyncio.to_thread(target.is_file):
                if not await asyncio.to_thread(lambda: result.is_file() and clip.is_file()):
                    raise NotFound(f"the files of task '{record.task_id}' are no longer kept")
                facts = ClipFacts.model_validate_json((record.detail or {})["facts"])
                boxes = await asyncio.to_thread(_boxes, result)
                await asyncio.to_thread(make, clip, facts, boxes, target)
        return target

    async def sweep(self) -> None:
        """Delete old files, for ever."""
        while True:
            deleted = await asyncio.to_thread(_delete_older, (self._uploads, self.results), time.time() - KEEP_S)
            if deleted:
                log.info("old files deleted", count=deleted)
            await asyncio.sleep(SWEEP_EVERY_S)


def _boxes(result: Path) -> Mapping[int, list[Detection]]:
    body: dict[str, Any] = orjson.loads(result.read_bytes())
    return {frame["frame_index"]: [Detection(**box) for box in frame["detections"]] for frame in body["frames"]}


def _mot(result: Path, label: str) -> str:
    found = _boxes(result).items()
    return write_mot((index, [box for box in boxes if label in ("", box.label)]) for index, boxes in found)


def _delete_older(folders: tuple[Path, ...], than_s: float) -> int:
    old = [path for folder in folders for path in folder.iterdir() if path.stat().st_mtime < than_s]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
