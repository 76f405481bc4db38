"""Accepts clips and keeps their files: uploads, results and annotated clips."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from gateway.request_options import RequestOptions, new_task_id
from gateway.video.accepted import AcceptedClips
from gateway.video.disk_room import Claim, DiskLimits, DiskRoom, owner_of, owner_of_upload, upload_name
from gateway.video.job_queue import work_pixels
from gateway.video.job_results import JobFiles
from gateway.video.schema import ClipFacts, ClipFields, VideoJob
from gateway.video.uploads import FILE_FIELD
from gateway.video.webhooks import Webhooks
from skyshore.domain.errors import InvalidMedia, NotFound, PayloadTooLarge, QueueFull
from skyshore.domain.job import JobRank, TaskRecord
from skyshore.domain.task import TaskKind
from skyshore.domain.video import Detection
from skyshore.ports import StateStore
from skyshore.runtime.disk import disk_errors
from skyshore.runtime.endure import for_ever
from skyshore.workload.annotations import write_mot

log = structlog.get_logger()

KEEP_S = 25 * 3600.0
"""Seconds until a file is deleted: an hour more than the record that names it is kept."""
SWEEP_EVERY_S = 3600.0
PROBES = 8
"""Clips whose properties are read at the same time."""


Fill = Callable[[Claim], Awaitable[tuple[ClipFields, RequestOptions]]]
"""Writes an upload to the path of a claim; returns its fields and options."""


@dataclass(frozen=True, slots=True)
class AcceptLimits:
    """What is accepted."""

    disk: DiskLimits
    uploads_in_flight: int
    jobs_of_caller: int
    """Open jobs of one caller."""
    most_pixels: float
    """Work of one clip; see `gateway.video.job_queue`."""


class ClipStore:
    """Uploads, results and annotated clips in one folder."""

    def __init__(
        self,
        store: StateStore,
        folder: Path,
        limits: AcceptLimits,
        check_offered: Callable[[TaskKind, str], Awaitable[None]],
        webhooks: Webhooks,
    ) -> None:
        """Set where clips are kept, and what is accepted.

        Args:
            store: where accepted jobs go.
            folder: the state folder.
            limits: of what is accepted.
            check_offered: raises if no node offers a kind of task with a model.
            webhooks: where those of accepted clips are kept.
        """
        self._store, self._limits, self._check_offered, self._webhooks = store, limits, check_offered, webhooks
        self._folder = folder
        self._uploads, self.results, self._parts = folder / "uploads", folder / "results", folder / "parts"
        self.files = JobFiles(self._uploads, self.results, self._parts)
        self._accepted = AcceptedClips(store, folder / "accepted")
        self._room = DiskRoom(self._uploads, self.results, limits.disk)
        self._uploading = 0
        self._annotating = asyncio.Lock()
        self._probing = ThreadPoolExecutor(PROBES, "probe")  # its own: clips that are slow to read delay nothing else

    def make_folders(self) -> None:
        """Create the missing folders. Raises DiskFull, DiskUnavailable."""
        with disk_errors():
            for folder in (self._uploads, self.results, self._parts, self._folder / "accepted"):
                folder.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Stop reading clips at once."""
        self._probing.shutdown(wait=False, cancel_futures=True)
        if clip_work := sys.modules.get("gateway.video.clip_work"):  # loaded with the first clip
            clip_work.stop_reading()

    async def accept_upload(self, kind: TaskKind, caller: str, expected_bytes: int, fill: Fill) -> TaskRecord:
        """Let `fill` write the clip to the path of a claim, then accept it. A refused clip is deleted.

        Raises:
            InvalidMedia: the file is not a clip that can be read.
            QueueFull: too many uploads are in progress.
            DiskFull, DiskUnavailable: the disk does not take the file.
            StoreUnavailable: the state store is away, or refuses writes.
        """
        if self._uploading >= self._limits.uploads_in_flight:
            raise QueueFull(
                f"{self._limits.uploads_in_flight} uploads are in progress; try again when some have ended",
                retry_after_s=1.0,
            )
        self._uploading += 1
        try:
            await self._store.registry_epoch()  # it writes: before a gigabyte is uploaded in vain
            await asyncio.to_thread(self.make_folders)  # somebody may have deleted them
            task_id, owner = new_task_id(), owner_of(caller)
            path = self._uploads / upload_name(owner, task_id)
            async with self._room.claim(owner, path, expected_bytes) as claim:
                return await self._accept_filled(kind, task_id, claim, fill, caller)
        finally:
            self._uploading -= 1

    async def _accept_filled(self, kind: TaskKind, task_id: str, claim: Claim, fill: Fill, caller: str) -> TaskRecord:
        path = claim.path
        try:
            fields, options = await fill(claim)
            return await self.accept(kind, task_id, path, fields, options, caller=caller)
        except BaseException as error:
            _delete(path)
            if isinstance(error, InvalidMedia):  # the caller does not know the name of our copy
                raise InvalidMedia(error.message.replace(path.name, "the upload"), param=FILE_FIELD) from error
            raise

    async def accept(
        self, kind: TaskKind, task_id: str, path: Path, fields: ClipFields, options: RequestOptions, *, caller: str
    ) -> TaskRecord:
        """Check a clip on disk and make it a job of `caller`, which is durable when this returns.

        Raises:
            PayloadTooLarge: the clip is more work than one clip may be.
            QueueFull: the queue is full, or the caller has too many open jobs.
            SkyshoreError: as `accept_upload`, or no node offers what is asked for.
        """
        from gateway.video import clip_work  # noqa: PLC0415 - see DetectionJobs.run

        if fields.webhook:
            self._webhooks.check(fields.webhook)
        await self._check_offered(kind, fields.model)
        with disk_errors():
            facts = await asyncio.get_running_loop().run_in_executor(self._probing, clip_work.probe, path)
        work, most = work_pixels(facts.frame_count, facts.width, facts.height), self._limits.most_pixels
        if work > most:
            raise PayloadTooLarge(
                f"the clip is {work / 1e9:.1f} gigapixels of work, the limit is {most / 1e9:g}; cut it",
                param=FILE_FIELD,
            )
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
            **fields.job_options(),
        )
        record = job.record()
        rank = JobRank(caller, options.priority, job.created_at_s + job.deadline_s, work)
        await self._accept(record, job, rank, fields.webhook)
        return record

    async def _accept(self, record: TaskRecord, job: VideoJob, rank: JobRank, webhook: str | None) -> None:
        if webhook:  # before the job, which may end at once
            with disk_errors():
                await asyncio.to_thread(self._webhooks.keep, job.task_id, webhook)
        await self._accepted.add(job, rank)
        try:
            await self._store.accept_job(record, job.model_dump_json().encode(), rank, self._limits.jobs_of_caller)
        except BaseException as error:
            self._accepted.remove(job.task_id)
            if isinstance(error, QueueFull):  # surely not accepted; after any other error a scan looks for the task
                await asyncio.to_thread(self._webhooks.drop, job.task_id)
            raise

    async def annotated(self, record: TaskRecord) -> Path:
        """The clip with its boxes, made at the first request. Raises NotFound when its files are deleted."""
        from gateway.video import clip_work  # noqa: PLC0415 - see DetectionJobs.run

        return await self._draw(record, "mp4", clip_work.annotate)

    async def contact_sheet(self, record: TaskRecord) -> Path:
        """Some frames with their boxes, as a PNG. Otherwise as `annotated`."""
        from gateway.video import clip_work  # noqa: PLC0415 - see DetectionJobs.run

        return await self._draw(record, "png", clip_work.contact_sheet)

    async def mot_text(self, record: TaskRecord, label: str) -> str:
        """The boxes of one class as MOT text; an empty label means all. Raises NotFound as `annotated`."""
        result = Path(record.result_path)
        if not await asyncio.to_thread(result.is_file):
            raise NotFound(f"the files of task '{record.task_id}' are no longer kept")
        return await asyncio.to_thread(_mot, result, label)

    async def _draw(
        self,
        record: TaskRecord,
        suffix: str,
        make: Callable[[Path, ClipFacts, Mapping[int, list[Detection]], Path], None],
    ) -> Path:
        target = self.results / f"{record.task_id}.{suffix}"
        result = Path(record.result_path)
        clip = Path((record.detail or {}).get("path", ""))
        async with self._annotating:  # one at a time: it uses a whole core
            if not await asyncio.to_thread(target.is_file):
                if not await asyncio.to_thread(lambda: result.is_file() and clip.is_file()):
                    raise NotFound(f"the files of task '{record.task_id}' are no longer kept")
                facts = ClipFacts.model_validate_json((record.detail or {})["facts"])
                boxes = await asyncio.to_thread(_boxes, result)
                with disk_errors():
                    async with self._room.claim(owner_of_upload(clip.name), target, facts.size_bytes):
                        await asyncio.to_thread(make, clip, facts, boxes, target)
        return target

    async def sweep(self) -> None:
        """Delete old files. Runs until cancelled."""
        await for_ever("old files", self._sweep, SWEEP_EVERY_S)

    async def restore(self) -> None:
        """Restore accepted clips that the store lost. Runs until cancelled."""
        await self._accepted.watch()

    async def _sweep(self) -> None:
        folders = (self._uploads, self.results, self._parts)
        deleted = await asyncio.to_thread(_delete_older, folders, time.time() - KEEP_S)
        if deleted:
            log.info("old files deleted", count=deleted)


def _boxes(result: Path) -> Mapping[int, list[Detection]]:
    body: dict[str, Any] = orjson.loads(result.read_bytes())
    return {frame["frame_index"]: [Detection(**box) for box in frame["detections"]] for frame in body["frames"]}


def _mot(result: Path, label: str) -> str:
    found = _boxes(result).items()
    return write_mot((index, [box for box in boxes if label in ("", box.label)]) for index, boxes in found)


def _delete_older(folders: tuple[Path, ...], than_s: float) -> int:
    count = 0
    for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
        with suppress(FileNotFoundError):  # another gateway was faster
            if path.stat().st_mtime < than_s:
                count += _delete(path)
    return count


def _delete(path: Path) -> bool:
    """Whether it is gone. What cannot be deleted is logged and does not stop the others."""
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.error("a file cannot be deleted", path=str(path), why=str(error))
        return False
    return True
