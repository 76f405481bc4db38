"""Short clips of actions of cars, in classes that cannot be distinguished by a single frame.

Every class has two cars, with sizes, places and colours of the same distributions. Classes are pairs that are the time
reversal of each other, or differ only in the relation of two paths. So a single frame has almost no information.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.errors import InvalidTask
from skyshore.workload.synthetic.clips import (
    CAR,
    PERSON,
    Actor,
    Colour,
    Frames,
    expose,
    random_colour,
    render,
    street_background,
)

ACTIONS = ("drive_right", "drive_left", "approach", "recede", "meet", "part", "follow", "overtake")
"""Class names in the order of a model's labels."""

_Path = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """Size and difficulty of action clips."""

    width: int = 48
    height: int = 48
    frame_count: int = 8
    fps: float = 4.0
    noise: float = 5.0
    """Standard deviation of sensor noise in 8-bit steps."""


@dataclass(frozen=True, slots=True)
class _Paths:
    """Two cars over time 0..1: centres as shares of the width, and the first car's relative size."""

    first_x: _Path
    second_x: _Path
    first_size: _Path


def action_clip(action: str, spec: ActionSpec, rng: np.random.Generator) -> Frames:
    """Frames [T, H, W, 3] of one action; same generator state, same clip.

    Raises:
        InvalidTask: no such action.
    """
    paths = _paths(action, spec.frame_count, rng)
    cars = _cars(paths, spec, rng)
    walker = _walker(spec, rng)
    actors = sorted((*cars, walker), key=lambda actor: float(actor.bottom_y.mean()))
    background = street_background(spec.height, spec.width, rng)
    pole = int(rng.integers(0, spec.width - 1))
    colour: Colour = (70, 60, 45)
    occluders = [(slice(round(0.3 * spec.height), spec.height), slice(pole, pole + 1), colour)]
    frames, _, _ = render(actors, background, spec.frame_count, spec.fps, occluders=occluders)
    light = rng.uniform(0.5, 1.0) * (1.0 + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, spec.frame_count))
    return expose(frames, light, spec.noise, rng)


def action_batch(count: int, spec: ActionSpec, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`count` clips of uniformly drawn actions [N, T, H, W, 3] and their labels [N]."""
    labels = rng.integers(0, len(ACTIONS), count)
    clips = np.stack([action_clip(ACTIONS[label], spec, rng) for label in labels])
    return clips, labels


def _paths(action: str, count: int, rng: np.random.Generator) -> _Paths:
    time = _pace(count, rng)
    run = rng.uniform(0.3, 0.5)
    still = np.full(count, rng.uniform(0.15, 0.85))
    forward = rng.uniform(0.12, 0.88 - run) + run * time
    size = np.full(count, rng.uniform(0.75, 1.35))
    growth = np.linspace(0.75, rng.uniform(1.2, 1.35), count)
    place = np.full(count, rng.uniform(0.15, 0.85))
    gap = rng.uniform(0.02, 0.06)
    closing = (gap + run * (1.0 - time)) / 2
    middle = rng.uniform(0.12 + closing[0], 0.88 - closing[0])
    side = 1.0 if rng.random() < 0.5 else -1.0
    apart = rng.uniform(0.1, 0.35) * (1.0 if rng.random() < 0.5 else -1.0)
    match action:
        case "drive_right":
            paths = _Paths(forward, still, size)
        case "drive_left":
            paths = _Paths(1.0 - forward, still, size)
        case "approach":
            paths = _Paths(place, still, growth)
        case "recede":
            paths = _Paths(place, still, growth[::-1])
        case "meet":
            paths = _Paths(middle - side * closing, middle + side * closing, size)
        case "part":
            paths = _Paths(middle - side * closing[::-1], middle + side * closing[::-1], size)
        case "follow":
            paths = _mirrored(forward - apart / 2, forward + apart / 2, size, side)
        case "overtake":
            lag = rng.uniform(0.1, 0.2)
            slow = forward[0] + lag + (run - 2 * lag) * time
            paths = _mirrored(forward, slow, size, side)
        case _:
            raise InvalidTask(f"no action called {action}; there are {', '.join(ACTIONS)}")
    return paths


def _mirrored(first: _Path, second: _Path, size: _Path, side: float) -> _Paths:
    return _Paths(first, second, size) if side > 0 else _Paths(1.0 - first, 1.0 - second, size)


def _pace(count: int, rng: np.random.Generator) -> _Path:
    """0..1 with a mild, random change of speed on the way."""
    time = np.linspace(0.0, 1.0, count)
    return time + rng.uniform(-0.1, 0.1) * np.sin(2 * np.pi * time) / np.pi


def _cars(paths: _Paths, spec: ActionSpec, rng: np.random.Generator) -> tuple[Actor, Actor]:
    base = 0.17 * spec.height
    rows = rng.permutation([0.66, 0.9]) * spec.height + rng.uniform(-0.03, 0.03, 2) * spec.height
    ones = np.ones(spec.frame_count)
    sizes = (paths.first_size * base, ones * base * rng.uniform(0.75, 1.35))
    # A car that comes closer also moves down the picture; others keep their row.
    sink = (paths.first_size - paths.first_size.mean()) * 0.5 * base
    bottoms = (rows[0] + sink, rows[1] * ones)
    centres = (paths.first_x * spec.width, paths.second_x * spec.width)
    first, second = (Actor(CAR, random_colour(rng), x, y, h) for x, y, h in zip(centres, bottoms, sizes, strict=True))
    return first, second


def _walker(spec: ActionSpec, rng: np.random.Generator) -> Actor:
    """Somebody on the far pavement who has nothing to do with the answer."""
    start, speed = rng.uniform(0.1, 0.9), rng.uniform(-0.15, 0.15)
    x = (start + speed * np.linspace(0, 1, spec.frame_count)) * spec.width
    ones = np.ones(spec.frame_count)
    return Actor(PERSON, (180, 140, 90), x, 0.56 * spec.height * ones, 0.14 * spec.height * ones)
