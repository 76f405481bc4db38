"""The front's side of classification: it batches clips and runs each batch on as many ranks as pay off."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from numpy.typing import NDArray

from cloud_node.classify.model import ModelConfig, SpaceTimeTransformer
from cloud_node.classify.requests import CALIBRATE, ClassifyRequest, EngineKind
from cloud_node.classify.weights import SHIPPED, ModelCard, load
from cloud_node.dsp.cost import Fabric, cheapest_size
from cloud_node.dsp.group import RankGroup
from cloud_node.dsp.launcher import RankCommand
from cloud_node.dsp.wire import Wire
from skyshore.domain.errors import DeadlineExceeded, InvalidMedia, NodeUnavailable, QueueFull, SkyshoreError
from skyshore.domain.video import Classification, LabelScore

CALIBRATION_S = 30.0


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """How clips are classified."""

    weights: Path = SHIPPED
    engine: EngineKind = EngineKind.TORCH
    wire: Wire = Wire.EXACT
    chunks: int = 1
    """Pieces in which work and switch overlap; more than 1 pays on slow links only."""
    max_batch: int = 8
    """Clips that go to the ranks together."""
    waiting: int = 64
    """Clips admitted at a time."""

    def command(self, threads: int = 1) -> RankCommand:
        """What the ranks of the group must run."""
        argument = f"{self.engine.value}:{self.weights}"
        return RankCommand("cloud_node.classify.program:build", argument=argument, threads=threads)


@dataclass(frozen=True, slots=True)
class TimedClassification:
    """What a clip shows, and the seconds that took."""

    found: Classification
    queue_s: float
    compute_s: float


@dataclass(slots=True)
class _Waiting:
    patches: NDArray[np.uint8]
    asked_at_s: float
    ends_at_s: float
    answer: asyncio.Future[TimedClassification]


@dataclass(slots=True)
class ClipClassifier:
    """Batches waiting clips; the cost model says how many ranks run a batch. Use inside the group's context."""

    group: RankGroup
    settings: ClassifierSettings = field(default_factory=ClassifierSettings)
    fabric: Fabric | None = None
    """Speeds from which the group size is chosen; None measures them on entry."""
    _model: SpaceTimeTransformer = field(init=False)
    _card: ModelCard = field(init=False)
    _queue: asyncio.Queue[_Waiting] = field(init=False)
    _workers: list[asyncio.Task[None]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._model, self._card = load(self.settings.weights)
        self._queue = asyncio.Queue(self.settings.waiting)

    @property
    def card(self) -> ModelCard:
        """What the model is and how good it was."""
        return self._card

    @property
    def picture_size(self) -> tuple[int, int]:
        """Width and height that the model looks at."""
        return self._model.config.width, self._model.config.height

    async def __aenter__(self) -> Self:
        if self.fabric is None:
            nothing = np.zeros(0, np.uint8)
            measured = await self.group.run(CALIBRATE, [nothing] * self.group.size, CALIBRATION_S)
            self.fabric = Fabric(*(float(value) for value in measured))
        self._workers = [asyncio.create_task(self._work(), name=f"classify{i}") for i in range(self.group.size)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def classify(self, frames: NDArray[np.uint8], deadline_s: float) -> TimedClassification:
        """Classify a clip: RGB frames [T, H, W, 3], 8-bit, of any length and size.

        Raises:
            InvalidMedia: that is no clip.
            QueueFull: too many clips wait already.
            DeadlineExceeded: no answer within `deadline_s`.
            NodeUnavailable: the ranks failed twice.
        """
        loop, asked_at_s = asyncio.get_running_loop(), time.perf_counter()
        ends_s = loop.time() + deadline_s
        patches = await asyncio.to_thread(self._prepare, frames)
        item = _Waiting(patches, asked_at_s, ends_s, loop.create_future())
        try:
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            raise QueueFull("too many clips wait to be classified; try again in a second", retry_after_s=1.0) from None
        try:
            async with asyncio.timeout_at(item.ends_at_s):
                return await item.answer
        except TimeoutError:
            raise DeadlineExceeded(f"the clip was not classified within {deadline_s:.3g} s") from None

    def size_for(self, batch: int) -> int:
        """Ranks worth using for a batch: the fewest that are within a tenth of the fastest."""
        request = self._request(batch)
        sizes = range(1, self.group.size + 1)
        return cheapest_size([(n, request.plan(self._model, n, self.settings.engine).seconds) for n in sizes])

    def _request(self, batch: int) -> ClassifyRequest:
        if self.fabric is None:
            raise NodeUnavailable("the classifier has not measured its ranks yet; enter it with `async with`")
        return ClassifyRequest(batch, self.fabric, self.settings.wire, self.settings.chunks)

    def _prepare(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        clip = torch.from_numpy(resample(frames, self._model.config))
        patches: NDArray[np.uint8] = self._model.patches(clip[None]).numpy()
        return patches

    async def _work(self) -> None:
        """Run waiting clips in batches until cancelled. An error fails the callers of its batch, not this loop."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self.settings.max_batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            batch = [item for item in batch if not item.answer.done() and item.ends_at_s > loop.time()]
            if not batch:
                continue
            try:
                await self._run(batch)
            except SkyshoreError as failure:
                for item in batch:
                    if not item.answer.done():
                        item.answer.set_exception(failure)

    async def _run(self, batch: list[_Waiting]) -> None:
        began_s = time.perf_counter()  # uvloop's own clock counts whole milliseconds
        size, request = self.size_for(len(batch)), self._request(len(batch))
        plan = request.plan(self._model, size, self.settings.engine)
        patches = np.concatenate([item.patches for item in batch])
        cuts = np.cumsum(plan.start.splits)[:-1]
        parts = np.split(patches, cuts, axis=plan.start.dim or 0)
        left_s = max(item.ends_at_s for item in batch) - asyncio.get_running_loop().time()
        logits = await self.group.run(request.to_json(), parts, left_s)
        took_s = time.perf_counter() - began_s
        for item, row in zip(batch, logits, strict=True):
            if not item.answer.done():
                item.answer.set_result(self._answer(row, size, len(batch), began_s - item.asked_at_s, took_s))

    def _answer(
        self, logits: NDArray[Any], ranks: int, batch: int, queue_s: float, compute_s: float
    ) -> TimedClassification:
        weights = np.exp(logits.astype(np.float64) - logits.max())
        shares = weights / weights.sum()
        order = np.argsort(-shares)
        labels = tuple(LabelScore(self._card.labels[i], float(shares[i])) for i in order)
        return TimedClassification(Classification(labels, ranks, batch), queue_s, compute_s)


def resample(frames: NDArray[np.uint8], config: ModelConfig) -> NDArray[np.uint8]:
    """Evenly spaced frames in the model's number, averaged down to its size.

    Raises:
        InvalidMedia: not 8-bit RGB frames [T, H, W, 3], or none at all.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise InvalidMedia(
            f"a clip is 8-bit RGB frames [T, H, W, 3], not {frames.dtype} {frames.shape}", param="frames"
        )
    chosen = np.rint(np.linspace(0, len(frames) - 1, config.frames)).astype(int)
    picked: NDArray[np.uint8] = frames[chosen]
    if picked.shape[1:3] == (config.height, config.width):
        return picked
    planes = torch.from_numpy(picked).permute(0, 3, 1, 2).float()
    scaled = F.interpolate(planes, (config.height, config.width), mode="area")
    small: NDArray[np.uint8] = scaled.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return small
