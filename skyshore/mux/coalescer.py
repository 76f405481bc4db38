"""The send queue at each end of a mux stream: puts many small frames into one message."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from google.protobuf.message import Message

FrameT = TypeVar("FrameT", bound=Message)

MAX_BATCH_FRAMES = 16
"""Frames in one message. Larger messages save little per frame, and their receivers wait for the last frame: under load
the processes would then run one after another instead of in parallel."""
MAX_BATCH_BYTES = 256 * 1024
"""Size limit of a message: large enough to amortise its cost, small enough not to delay other frames."""
HIGH_WATER_BYTES = 1024 * 1024
"""Streaming senders wait while more bytes than this are queued: it limits the memory that a slow reader costs."""


class Coalescer(Generic[FrameT]):
    """A queue with one reader, which takes all frames that were put since its last read.

    The reader wakes in the next iteration of the event loop, so frames of one iteration go into one message. While it
    writes, more frames gather, so messages grow with the load. Frames keep their order.
    """

    def __init__(
        self,
        max_batch_bytes: int = MAX_BATCH_BYTES,
        high_water_bytes: int = HIGH_WATER_BYTES,
        max_batch_frames: int = MAX_BATCH_FRAMES,
    ) -> None:
        self._max_batch_bytes, self._max_batch_frames = max_batch_bytes, max_batch_frames
        self._high_water_bytes = high_water_bytes
        self._frames: deque[tuple[FrameT, int]] = deque()
        self._queued_bytes = 0
        self._closed = False
        self._readable = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def queued_bytes(self) -> int:
        """Serialised size of the waiting frames."""
        return self._queued_bytes

    @property
    def full(self) -> bool:
        """Whether a full batch waits, so that waiting longer gains nothing."""
        return len(self._frames) >= self._max_batch_frames or self._queued_bytes >= self._max_batch_bytes

    def put(self, frame: FrameT) -> None:
        """Queue a frame without waiting. Frames put after `close` are dropped: there is no reader."""
        if self._closed:
            return
        size_bytes = frame.ByteSize()
        self._frames.append((frame, size_bytes))
        self._queued_bytes += size_bytes
        if self._queued_bytes > self._high_water_bytes:
            self._has_room.clear()
        self._readable.set()

    async def room(self) -> None:
        """Wait until the queue is below its high water mark or closed."""
        await self._has_room.wait()

    async def filled(self) -> None:
        """Wait until a frame waits or the queue is closed."""
        await self._readable.wait()

    async def take(self) -> list[FrameT]:
        """Wait for frames and take one batch. The batch is empty only when the queue is closed and empty."""
        await self.filled()
        batch: list[FrameT] = []
        batch_bytes = 0
        while self._frames and len(batch) < self._max_batch_frames:
            frame, size_bytes = self._frames[0]
            if batch and batch_bytes + size_bytes > self._max_batch_bytes:
                break
            self._frames.popleft()
            batch.append(frame)
            batch_bytes += size_bytes
        self._queued_bytes -= batch_bytes
        if self._queued_bytes <= self._high_water_bytes:
            self._has_room.set()
        if not self._frames and not self._closed:
            self._readable.clear()
        return batch

    def close(self) -> None:
        """Accept no more frames. The reader takes the remaining ones and then stops."""
        self._closed = True
        self._readable.set()
        self._has_room.set()
