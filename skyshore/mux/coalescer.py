"""Gathers small frames into larger messages: the send queue of either end of a mux stream."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from google.protobuf.message import Message

FrameT = TypeVar("FrameT", bound=Message)

MAX_BATCH_FRAMES = 16
"""More would save little per frame, and everybody downstream would wait for the last of a large batch: under load the
processes would take turns instead of working side by side."""
MAX_BATCH_BYTES = 256 * 1024
"""A message is closed once it holds this much: large enough to amortise, small enough not to delay other frames."""
HIGH_WATER_BYTES = 1024 * 1024
"""Streaming senders wait while more than this is queued, so that a slow reader costs memory only up to here."""


class Coalescer(Generic[FrameT]):
    """A queue whose one reader takes everything put since it last looked.

    The reader is woken in the loop's next turn, so frames of one turn travel together; while it is busy writing, more
    gather, so messages grow with the load by themselves. Frames keep their order.
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
        """Serialised size of what waits."""
        return self._queued_bytes

    @property
    def full(self) -> bool:
        """Whether a whole batch waits: there is nothing to be gained by waiting for more."""
        return len(self._frames) >= self._max_batch_frames or self._queued_bytes >= self._max_batch_bytes

    def put(self, frame: FrameT) -> None:
        """Queue a frame at once. Frames put after `close` are dropped: nobody is left to read them."""
        if self._closed:
            return
        size_bytes = frame.ByteSize()
        self._frames.append((frame, size_bytes))
        self._queued_bytes += size_bytes
        if self._queued_bytes > self._high_water_bytes:
            self._has_room.clear()
        self._readable.set()

    async def room(self) -> None:
        """Return once the queue is below its high water mark or closed."""
        await self._has_room.wait()

    async def filled(self) -> None:
        """Return once there is something to take, or closed."""
        await self._readable.wait()

    async def take(self) -> list[FrameT]:
        """Wait for frames and take as many as a batch may hold, at least one; empty once closed and read out."""
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
        """Let the reader take what is left and then stop."""
        self._closed = True
        self._readable.set()
        self._has_room.set()
