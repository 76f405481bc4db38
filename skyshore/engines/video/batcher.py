"""Runs one session for all segments: it collects prepared frames into batches on a thread of its own.

The thread takes whatever waits, up to `max_batch` frames of one size; when fewer wait it gives latecomers `wait_s` at
most. Post-processing happens on a second thread, so the session computes the next batch meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.errors import Internal, NodeUnavailable
from skyshore.domain.video import Detection

Array = NDArray[Any]
Finish = Callable[[Mapping[str, Array]], tuple[Detection, ...]]
"""From one frame's outputs to its detections."""


class Session(Protocol):
    """What the batcher needs of an inference session."""

    outputs: tuple[str, ...]

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Compute all outputs of a batch."""
        ...


@dataclass(frozen=True, slots=True)
class Inferred:
    """One frame, done."""

    detections: tuple[Detection, ...]
    started_at_s: float
    """When its batch began, by the clock of `time.monotonic`."""
    compute_s: float
    """Its share of the batch, plus its own post-processing."""


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """One prepared frame that waits."""

    planes: NDArray[np.uint8]
    finish: Finish
    result: Future[Inferred] = field(default_factory=Future)


class Batcher:
    """Owns the session's thread. Callers limit how much they submit; only cancelled frames are dropped."""

    def __init__(self, session: Session, max_batch: int, wait_s: float) -> None:
        self._session = session
        self._max_batch = max_batch
        self._wait_s = wait_s
        self._waiting: deque[FrameRequest] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._finishers = ThreadPoolExecutor(1, thread_name_prefix="video-finish")
        self._thread = threading.Thread(target=self._serve, name="video-infer", daemon=True)
        self._thread.start()

    def submit(self, planes: NDArray[np.uint8], finish: Finish) -> Future[Inferred]:
        """Queue a frame. Cancelling the future drops the frame if its batch has not begun.

        Raises:
            NodeUnavailable: the engine was closed.
        """
        request = FrameRequest(planes, finish)
        with self._changed:
            if self._closed:
                raise NodeUnavailable("the video engine is closed")
            self._waiting.append(request)
            self._changed.notify()
        return request.result

    @property
    def waiting(self) -> int:
        """Frames prepared and not yet begun."""
        return len(self._waiting)

    def close(self) -> None:
        """Fail what waits, finish what runs, end both threads. Blocks until they ended."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for request in left:
            if request.result.set_running_or_notify_cancel():
                request.result.set_exception(NodeUnavailable("the video engine was closed"))
        self._thread.join()
        self._finishers.shutdown()

    def _serve(self) -> None:
        while batch := self._next_batch():
            started_at_s = time.monotonic()
            try:
                answers = self._session.run({"frames": _stacked(batch)})
            except Exception as error:  # a failure of the runtime fails the batch, not the thread
                for request in batch:
                    request.result.set_exception(Internal(f"inference failed: {error}"))
                continue
            share_s = (time.monotonic() - started_at_s) / len(batch)
            self._finishers.submit(self._finish, batch, answers, started_at_s, share_s)

    def _next_batch(self) -> list[FrameRequest]:
        """Wait for work; an empty list means the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._waiting))
            if self._wait_s and not self._closed and len(self._waiting) < self._max_batch:
                self._changed.wait_for(lambda: self._closed or len(self._waiting) >= self._max_batch, self._wait_s)
            while not self._closed:
                if batch := self._take():
                    return batch
                self._changed.wait_for(lambda: self._closed or bool(self._waiting))
            return []

    def _take(self) -> list[FrameRequest]:
        """Take the oldest frame and those behind it of the same size; skip the cancelled ones."""
        batch: list[FrameRequest] = []
        while self._waiting and len(batch) < self._max_batch:
            if batch and self._waiting[0].planes.shape != batch[0].planes.shape:
                break
            request = self._waiting.popleft()
            if request.result.set_running_or_notify_cancel():
                batch.append(request)
        return batch

    def _finish(
        self, batch: Sequence[FrameRequest], answers: Sequence[Array], started_at_s: float, share_s: float
    ) -> None:
        for index, request in enumerate(batch):
            began_s = time.monotonic()
            outputs = {name: answer[index] for name, answer in zip(self._session.outputs, answers, strict=True)}
            try:
                detections = request.finish(outputs)
            except Exception as error:  # an error in decoding goes to the caller, not to this thread
                request.result.set_exception(Internal(f"post-processing failed: {error}"))
                continue
            request.result.set_result(Inferred(detections, started_at_s, share_s + time.monotonic() - began_s))


def _stacked(batch: Sequence[FrameRequest]) -> Array:
    """Planes with a batch axis; those of a single frame are not copied, for the session waits while we hold the GIL."""
    return batch[0].planes[None] if len(batch) == 1 else np.stack([request.planes for request in batch])
