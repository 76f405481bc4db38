"""The clip classifier as a node's engine: encoded frames in, labels out, the model sharded over a rank group."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud_node.classify.service import ClassifierSettings, ClipClassifier, TimedClassification
from cloud_node.dsp.group import GroupSettings, RankGroup
from cloud_node.dsp.launcher import ForkLauncher
from skyshore.adapters.video_decode import Picture, SegmentDecoder, open_decoder
from skyshore.domain.errors import DeadlineExceeded, InvalidMedia, QueueFull
from skyshore.domain.node import EngineLoad
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task
from skyshore.domain.video import Classification, EncodedFrame, SegmentInfo

MOST_FRAMES = 256
"""Frames of one clip; the model looks at a few, so more than this are an error of the sender."""


class RankClassifierEngine:
    """Implements `ClipClassifierEngine`. `start` makes one; `close` ends its ranks."""

    def __init__(self, group: RankGroup, classifier: ClipClassifier, stack: AsyncExitStack) -> None:
        self.model = classifier.card.name
        self.group = group
        self._classifier, self._stack = classifier, stack
        self._admitted = 0
        self._cpu_s: dict[int, float] = {}

    @classmethod
    async def start(
        cls, group: GroupSettings, settings: ClassifierSettings | None = None, threads: int = 1
    ) -> RankClassifierEngine:
        """Start the ranks on this host and measure them; takes seconds, for each loads torch.

        Raises:
            NodeUnavailable: the ranks did not come up.
        """
        settings = settings or ClassifierSettings()
        async with AsyncExitStack() as stack:
            launcher = ForkLauncher(group.size, settings.command(threads))
            ranks = await stack.enter_async_context(RankGroup(group, launcher))
            classifier = await stack.enter_async_context(ClipClassifier(ranks, settings))
            return cls(ranks, classifier, stack.pop_all())

    async def classify(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[Classification | WorkerOutcome]:
        """See `ClipClassifierEngine`; `task.deadline_s` counts from the first step of the iteration."""
        if self._admitted >= self._classifier.settings.waiting:
            raise QueueFull(f"{self.model} has {self._admitted} clips already; try again", retry_after_s=1.0)
        self._admitted += 1
        try:
            answer, decode_s, count = await self._answer(task, info, frames)
        finally:
            self._admitted -= 1
        yield answer.found
        yield WorkerOutcome(queue_s=answer.queue_s, prefill_s=decode_s, compute_s=answer.compute_s, frames=count)

    def load(self) -> EngineLoad:
        """See `ClipClassifierEngine`. A batch counts as one clip per rank, the rest of it as waiting."""
        running = min(self._admitted, self.group.size)
        waiting = self._admitted - running
        return EngineLoad(running=running, queued=waiting, capacity=self._classifier.settings.waiting)

    def ranks_cpu_s(self) -> float:
        """CPU seconds of all ranks so far, as far as they were read; 0 on a system without /proc."""
        for pid in self.group.pids:
            with suppress(OSError):
                # User and system time are the 14th and 15th field; the second, in brackets, may hold blanks.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self._cpu_s[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return sum(self._cpu_s.values())

    async def close(self) -> None:
        """End the ranks."""
        await self._stack.aclose()

    async def _answer(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> tuple[TimedClassification, float, int]:
        """What the clip shows, the seconds spent decoding it, and its frames."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + task.deadline_s
        decoder, pictures, decode_s = open_decoder(info.codec), list[Picture](), 0.0
        try:
            async with asyncio.timeout_at(ends_s):
                async for frame in frames:
                    if len(pictures) >= MOST_FRAMES:
                        raise InvalidMedia(f"a clip of more than {MOST_FRAMES} frames; send a sample of it")
                    began_s = time.perf_counter()
                    pictures += await asyncio.to_thread(self._decode, decoder, frame.data)
                    decode_s += time.perf_counter() - began_s
                pictures += await asyncio.to_thread(self._decode, decoder, None)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{len(pictures)} of {info.frame_count} frames had come when the deadline passed"
            ) from None
        if not pictures:
            raise InvalidMedia("a clip without frames shows nothing")
        answer = await self._classifier.classify(np.stack(pictures), max(ends_s - loop.time(), 0.0))
        return answer, decode_s, len(pictures)

    def _decode(self, decoder: SegmentDecoder, data: bytes | None) -> list[NDArray[np.uint8]]:
        """Pictures in the model's size and colour order, so that a clip of large ones takes no more memory."""
        size = self._classifier.picture_size
        ready = decoder.flush() if data is None else decoder.decode(data)
        return [cv2.cvtColor(_scaled(picture, size), cv2.COLOR_BGR2RGB) for picture in ready]  # type: ignore[misc]


def _scaled(picture: Picture, size: tuple[int, int]) -> Picture:
    if picture.shape[1::-1] == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
