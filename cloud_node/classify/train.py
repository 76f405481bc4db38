"""Trains the action classifier on synthetic clips, and a single-frame model that shows what motion is worth."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from numpy.typing import NDArray
from torch import Tensor

from cloud_node.classify.model import ModelConfig, SpaceTimeTransformer
from cloud_node.classify.weights import ModelCard
from skyshore.workload.synthetic.actions import ACTIONS, ActionSpec, action_batch

Report = Callable[[str], None]

_FLIPPED = {"drive_right": "drive_left", "drive_left": "drive_right"}
_REVERSED = {**_FLIPPED, "approach": "recede", "recede": "approach", "meet": "part", "part": "meet"}


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One training run; the same values give the same weights on the same machine."""

    seed: int = 7
    clips: int = 8192
    """Clips drawn; each is seen about steps × batch / clips times, flipped and reversed at random."""
    heldout: int = 2048
    """Clips from another seed, never trained on."""
    steps: int = 3600
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    spec: ActionSpec = field(default_factory=ActionSpec)
    model: ModelConfig = field(default_factory=ModelConfig)


@dataclass(frozen=True, slots=True)
class Clips:
    """Frames [N, T, H, W, 3] and labels [N]."""

    frames: Tensor
    labels: Tensor


def draw(count: int, spec: ActionSpec, rng: np.random.Generator) -> Clips:
    """Fresh clips from the generator."""
    frames, labels = action_batch(count, spec, rng)
    return Clips(torch.from_numpy(frames), torch.from_numpy(labels))


def train_classifier(settings: TrainSettings, report: Report) -> tuple[SpaceTimeTransformer, ModelCard]:
    """Train both models and return the one that sees motion, with its card."""
    seeds = np.random.SeedSequence(settings.seed).spawn(3)
    report(f"drawing {settings.clips} clips to learn from and {settings.heldout} to be judged by")
    learn = draw(settings.clips, settings.spec, np.random.default_rng(seeds[0]))
    judge = draw(settings.heldout, settings.spec, np.random.default_rng(seeds[1]))
    report("the space–time model")
    model = fit(settings, learn, np.random.default_rng(seeds[2]), report)
    accuracy = score(model, judge)
    report(f"held-out accuracy {accuracy:.4f}; now the same model on one frame of each clip")
    still_settings = replace(settings, model=replace(settings.model, frames=1, colour_gain=1 / 128))
    rng = np.random.default_rng(settings.seed)
    stills = fit(still_settings, learn, rng, report)
    single = score(stills, one_frame(judge, rng))
    report(f"single-frame accuracy {single:.4f}; guessing gives {1 / len(ACTIONS):.4f}")
    card = ModelCard(
        name="space-time-actions",
        labels=ACTIONS,
        seed=settings.seed,
        steps=settings.steps,
        heldout_clips=settings.heldout,
        heldout_accuracy=accuracy,
        single_frame_accuracy=single,
        trained_with=f"torch {torch.__version__}, {platform.machine()} CPU",
    )
    return model, card


def fit(settings: TrainSettings, clips: Clips, rng: np.random.Generator, report: Report) -> SpaceTimeTransformer:
    """AdamW with warm-up and cosine decay. A model of one frame gets a random frame of each clip."""
    torch.manual_seed(settings.seed)
    model = SpaceTimeTransformer(settings.model).train()
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _pace(step, settings.steps))
    running = math.log(len(ACTIONS))
    for step, batch in enumerate(_batches(settings, clips, rng)):
        loss = F.cross_entropy(model(batch.frames), batch.labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        running += 0.02 * (float(loss.detach()) - running)
        if step % 200 == 199:
            report(f"step {step + 1}/{settings.steps}: loss {running:.3f}")
    return model.eval()


def _pace(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _batches(settings: TrainSettings, clips: Clips, rng: np.random.Generator) -> Iterator[Clips]:
    for _ in range(settings.steps):
        chosen = torch.from_numpy(rng.integers(0, settings.clips, settings.batch))
        batch = augment(Clips(clips.frames[chosen], clips.labels[chosen]), rng)
        yield one_frame(batch, rng) if settings.model.frames == 1 else batch


def augment(batch: Clips, rng: np.random.Generator) -> Clips:
    """Mirror and time-reverse at random, and rename the action where that changes what happens."""
    frames, labels = batch.frames.clone(), batch.labels.clone()
    mirror, reverse = (torch.from_numpy(rng.random(len(labels)) < 0.5) for _ in range(2))
    frames[mirror] = frames[mirror].flip(3)
    labels[mirror] = _renamed(_FLIPPED)[labels[mirror]]
    frames[reverse] = frames[reverse].flip(1)
    labels[reverse] = _renamed(_REVERSED)[labels[reverse]]
    return Clips(frames, labels)


def _renamed(names: dict[str, str]) -> Tensor:
    return torch.tensor([ACTIONS.index(names.get(action, action)) for action in ACTIONS])


def one_frame(clips: Clips, rng: np.random.Generator) -> Clips:
    """One random frame of each clip, [N, 1, H, W, 3]."""
    index: NDArray[np.int64] = rng.integers(0, clips.frames.shape[1], len(clips.labels))
    return Clips(clips.frames[torch.arange(len(clips.labels)), torch.from_numpy(index)][:, None], clips.labels)


def score(model: SpaceTimeTransformer, clips: Clips, batch: int = 64) -> float:
    """Share of clips whose action is named right."""
    right = 0
    with torch.inference_mode():
        for frames, labels in zip(clips.frames.split(batch), clips.labels.split(batch), strict=True):  # type: ignore[no-untyped-call]
            right += int((model(frames).argmax(1) == labels).sum())
    return right / len(clips.labels)
