"""The ONNX video engine: several segments in flight, one session, all stages run at the same time.

The segment's feeder pulls a frame from the sender, decodes and scales it on a pool thread, submits it to the batcher
and appends it to a bounded queue. The caller's iterator reads that queue, so frames come out in order. While the queue
is full the feeder does not pull: that is the sender's back-pressure.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2

from skyshore.adapters.onnx_session import OnnxSession, SessionOptions
from skyshore.adapters.video_decode import Picture, SegmentDecoder, open_decoder
from skyshore.domain.errors import DeadlineExceeded, InvalidMedia, QueueFull
from skyshore.domain.node import EngineLoad
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task
from skyshore.domain.video import EncodedFrame, FrameDetections, SegmentInfo
from skyshore.engines.video.batcher import Batcher, Inferred
from skyshore.engines.video.detector import Detector, Planes

T = TypeVar("T")

CPU_BATCH = 1
"""A CPU gains nothing from batches (measured: 22 ms per frame alone, 23 ms in fours) and loses latency."""
ACCELERATOR_BATCH = 8


@dataclass(frozen=True, slots=True)
class VideoEngineSettings:
    """Budget of one engine."""

    slots: int = 4
    """Segments worked on at the same time."""
    queue: int = 12
    """Segments that may wait for a slot; one more is refused."""
    line: int = 8
    """Frames of one segment between decoding and the caller."""
    max_batch: int = 0
    """Frames in one batch at most; 0 takes what suits the processor."""
    batch_wait_s: float = 0.0
    """How long an incomplete batch waits for more frames; worth it on a GPU, a loss on a CPU."""
    decode_threads: int = 0
    """Threads that decode and scale; 0 takes one per core."""
    session: SessionOptions = field(default_factory=SessionOptions)


@dataclass(slots=True)
class _Segment:
    """State and figures of one running segment."""

    info: SegmentInfo
    size: tuple[int, int]
    decoder: SegmentDecoder
    deadline_at_s: float
    line: asyncio.Queue[tuple[EncodedFrame, Future[Inferred]] | Exception | None]
    """Frames under way, oldest first; then the error that ended the feeder, or None."""
    undecoded: deque[EncodedFrame] = field(default_factory=deque)
    """Frames whose picture the codec still holds."""
    ready_at_s: float = 0.0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    compute_s: float = 0.0
    frames: int = 0

    def outcome(self) -> WorkerOutcome:
        """What the node reports; energy is added there."""
        return WorkerOutcome(
            queue_s=self.queue_s, prefill_s=self.prefill_s, compute_s=self.compute_s, frames=self.frames
        )

    def count(self, inferred: Inferred) -> None:
        """Add one frame's figures."""
        if self.frames == 0:
            self.queue_s += max(inferred.started_at_s - self.ready_at_s, 0.0)
        self.frames += 1
        self.compute_s += inferred.compute_s


class OnnxVideoEngine:
    """Implements `VideoEngine` for one detector of the catalogue."""

    def __init__(self, folder: Path, settings: VideoEngineSettings | None = None) -> None:
        """Load the detector in `folder`; takes a second or so, so call it off the event loop.

        Raises:
            NotFound: the folder holds no detector.
        """
        settings = settings or VideoEngineSettings()
        self.model = folder.name
        self._settings = settings
        self._detector = Detector(folder)
        session = OnnxSession(self._detector.model_file, settings.session)
        on_cpu = session.providers[0] == "CPUExecutionProvider"
        max_batch = settings.max_batch or (CPU_BATCH if on_cpu else ACCELERATOR_BATCH)
        self._batcher = Batcher(session, max_batch, settings.batch_wait_s)
        self._decoders = ThreadPoolExecutor(
            settings.decode_threads or os.cpu_count() or 1, thread_name_prefix="video-decode"
        )
        self._slots = asyncio.Semaphore(settings.slots)
        self._admitted = 0
        self._running = 0
        cv2.setNumThreads(1)  # frames are what runs in parallel here; OpenCV's own pool would fight the session's

    async def detect(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncGenerator[FrameDetections | WorkerOutcome, None]:
        """Find objects; see `VideoEngine.detect`. `task.deadline_s` counts from the first step of the iteration.

        `WorkerOutcome.queue_s` is the wait before service began: for a slot, and of the first frame for its batch.
        `prefill_s` and `compute_s` are the work itself, summed over frames; as stages overlap they may add up to more
        than the time that passed.
        """
        capacity = self._settings.slots + self._settings.queue
        if self._admitted >= capacity:
            raise QueueFull(f"{self.model} has {capacity} segments already; try again", retry_after_s=1.0)
        arrived_at_s = time.monotonic()
        segment = _Segment(
            info=info,
            size=self._detector.input_size(info.source_width, info.source_height),
            decoder=open_decoder(info.codec),
            deadline_at_s=arrived_at_s + task.deadline_s,
            line=asyncio.Queue(self._settings.line),
        )
        self._admitted += 1
        try:
            await _in_time(segment, self._slots.acquire())
            segment.queue_s = time.monotonic() - arrived_at_s
            self._running += 1
            try:
                # Closed here: left to the garbage collector, it would go on pulling frames for a caller that went away.
                async with aclosing(self._results(segment, frames)) as results:
                    async for result in results:
                        yield result
            finally:
                self._running -= 1
                self._slots.release()
        finally:
            self._admitted -= 1
        yield segment.outcome()

    async def _results(
        self, segment: _Segment, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncGenerator[FrameDetections, None]:
        feeder = asyncio.create_task(self._feed(segment, frames))
        try:
            while (entry := await _in_time(segment, segment.line.get())) is not None:
                if isinstance(entry, Exception):
                    raise entry
                frame, future = entry
                inferred = await _in_time(segment, asyncio.wrap_future(future))
                segment.count(inferred)
                yield FrameDetections(frame.frame_index, frame.timestamp_s, inferred.detections)
        finally:
            feeder.cancel()
            await asyncio.wait([feeder])
            while not segment.line.empty():
                entry = segment.line.get_nowait()
                if isinstance(entry, tuple):
                    entry[1].cancel()

    async def _feed(self, segment: _Segment, frames: AsyncIterator[EncodedFrame]) -> None:
        """Pull, decode, scale and submit; ends by appending the error, or None, to the queue."""
        end: Exception | None = None
        try:
            async for frame in frames:
                segment.undecoded.append(frame)
                await self._submit(segment, partial(segment.decoder.decode, frame.data))
            await self._submit(segment, segment.decoder.flush)
            if segment.undecoded:
                end = InvalidMedia(f"the last {len(segment.undecoded)} frames of the segment hold no picture")
        except Exception as error:  # the caller raises it after the frames before it
            end = error
        await segment.line.put(end)

    async def _submit(self, segment: _Segment, decode: Callable[[], list[Picture]]) -> None:
        """Decode and scale on the pool, then queue the pictures for inference; waits while the queue is full."""
        loop = asyncio.get_running_loop()
        prepared, seconds = await loop.run_in_executor(self._decoders, self._prepare, decode, segment.size)
        segment.prefill_s += seconds
        for planes in prepared:
            if not segment.undecoded:
                raise InvalidMedia("a frame of the segment holds more than one picture")
            segment.ready_at_s = segment.ready_at_s or time.monotonic()
            finish = partial(self._detector.detections, size=segment.size, info=segment.info)
            await segment.line.put((segment.undecoded.popleft(), self._batcher.submit(planes, finish)))

    def _prepare(self, decode: Callable[[], list[Picture]], size: tuple[int, int]) -> tuple[list[Planes], float]:
        began_s = time.monotonic()
        planes = [self._detector.prepare(picture, size) for picture in decode()]
        return planes, time.monotonic() - began_s

    def load(self) -> EngineLoad:
        """Count segments; see `VideoEngine.load`."""
        return EngineLoad(
            running=self._running,
            queued=self._admitted - self._running,
            capacity=self._settings.slots + self._settings.queue,
        )

    async def close(self) -> None:
        """End the threads; frames still waiting fail with `NodeUnavailable`."""
        await asyncio.to_thread(self._batcher.close)
        await asyncio.to_thread(self._decoders.shutdown)


async def _in_time(segment: _Segment, waited_for: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(max(segment.deadline_at_s - time.monotonic(), 0.0)):
            return await waited_for
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"{segment.frames} of {segment.info.frame_count} frames were done when the deadline passed"
        ) from error
