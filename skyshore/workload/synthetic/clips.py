"""Street clips with exact boxes, drawn from a seed: vehicles, people, occlusion, light, noise, busy phases.

For tests, demos without downloads, and training data with known ground truth. The pictures are simple. Realistic are
the movement of the objects, how they hide each other, and how the load changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.video import Detection, FrameDetections

Frames = NDArray[np.uint8]
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Sprite:
    """A kind of object: rectangles (u1, v1, u2, v2, shade) in its unit box; `shade` multiplies its colour."""

    label: str
    aspect: float
    """Width over height."""
    parts: tuple[tuple[float, float, float, float, float], ...]


# Sprites are symmetric: one frame must not show the direction of an object. Parts touch all four edges of the unit
# box, so that boxes are tight.
CAR = Sprite(
    "car",
    2.0,
    (
        (0.0, 0.40, 1.0, 0.85, 1.0),
        (0.18, 0.0, 0.82, 0.45, 0.9),
        (0.23, 0.12, 0.48, 0.40, 0.3),
        (0.52, 0.12, 0.77, 0.40, 0.3),
        (0.10, 0.72, 0.28, 1.0, 0.12),
        (0.72, 0.72, 0.90, 1.0, 0.12),
    ),
)
BUS = Sprite(
    "bus",
    2.6,
    (
        (0.0, 0.0, 1.0, 0.88, 1.0),
        (0.04, 0.12, 0.48, 0.45, 0.3),
        (0.52, 0.12, 0.96, 0.45, 0.3),
        (0.10, 0.78, 0.24, 1.0, 0.12),
        (0.76, 0.78, 0.90, 1.0, 0.12),
    ),
)
PERSON = Sprite(
    "person",
    0.45,
    ((0.28, 0.0, 0.72, 0.2, 1.3), (0.0, 0.2, 1.0, 0.6, 1.0), (0.15, 0.6, 0.42, 1.0, 0.5), (0.58, 0.6, 0.85, 1.0, 0.5)),
)


@dataclass(frozen=True, slots=True)
class Actor:
    """One object and its path: centre and lower edge of its box and its height, in pixels per frame."""

    sprite: Sprite
    colour: Colour
    centre_x: NDArray[np.float64]
    bottom_y: NDArray[np.float64]
    height: NDArray[np.float64]

    def box(self, frame: int) -> tuple[int, int, int, int]:
        """Corners x1, y1, x2, y2 in whole pixels, not clipped to the picture."""
        tall = max(2, round(float(self.height[frame])))
        wide = max(2, round(tall * self.sprite.aspect))
        x1 = round(float(self.centre_x[frame]) - wide / 2)
        y2 = round(float(self.bottom_y[frame]))
        return x1, y2 - tall, x1 + wide, y2


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames with their ground truth."""

    frames: Frames
    """RGB, [T, H, W, 3]."""
    fps: float
    truth: tuple[FrameDetections, ...]
    """Boxes of whole objects, clipped to the picture, score 1. Objects less than a quarter visible are left out."""
    visible: tuple[tuple[float, ...], ...]
    """Visible share of the pixels of each box, in the order of `truth`."""
    busy: tuple[bool, ...]
    """For each frame, whether it is in a busy phase."""


@dataclass(frozen=True, slots=True)
class StreetSpec:
    """Size, traffic, light and noise of a street clip."""

    width: int = 640
    height: int = 360
    frame_count: int = 120
    fps: float = 15.0
    calm_arrivals_per_s: float = 0.4
    busy_arrivals_per_s: float = 3.0
    phase_s: float = 3.0
    """Mean length of a calm or busy phase in seconds; exponential."""
    light: float = 1.0
    """1 is noon, 0.25 night."""
    light_drift: float = 0.1
    """Relative change of the light over the clip, as by clouds."""
    noise: float = 4.0
    """Standard deviation of sensor noise in 8-bit steps."""
    occluders: int = 3
    """Number of trees and kiosks between camera and street."""


@dataclass(frozen=True, slots=True)
class _Lane:
    """A lane of the street. Its objects move in one direction at one speed, so that they do not collide."""

    sprites: tuple[Sprite, ...]
    bottom: float
    """Lower edge of its objects, as a share of the picture's height."""
    height: float
    """Height of its objects, as a share of the height of the picture."""
    direction: int


_LANES = (
    _Lane((PERSON,), 0.56, 0.13, 1),
    _Lane((CAR, CAR, BUS), 0.68, 0.13, -1),
    _Lane((CAR, CAR, BUS), 0.84, 0.17, 1),
    _Lane((PERSON,), 0.98, 0.26, -1),
)
"""Far to near; later ones are drawn over earlier ones."""


def street_clip(spec: StreetSpec, rng: np.random.Generator) -> Clip:
    """A fixed camera on a street with two lanes and two pavements. Same spec and generator state, same clip."""
    busy = _phases(spec, rng)
    actors = [actor for lane in _LANES for actor in _traffic(lane, spec, busy, rng)]
    background = street_background(spec.height, spec.width, rng)
    occluders = [_occluder(spec, rng) for _ in range(spec.occluders)]
    frames, truth, visible = render(actors, background, spec.frame_count, spec.fps, occluders=occluders)
    turns = np.linspace(0, 2 * np.pi, spec.frame_count) + rng.uniform(0, 2 * np.pi)
    light = spec.light * (1.0 + spec.light_drift * np.sin(turns))
    return Clip(expose(frames, light, spec.noise, rng), spec.fps, truth, visible, tuple(bool(b) for b in busy))


def _phases(spec: StreetSpec, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Alternating calm and busy phases, one flag per frame."""
    flags: list[bool] = []
    busy = bool(rng.random() < 0.5)
    while len(flags) < spec.frame_count:
        flags += [busy] * max(1, round(rng.exponential(spec.phase_s) * spec.fps))
        busy = not busy
    return np.array(flags[: spec.frame_count])


def _traffic(lane: _Lane, spec: StreetSpec, busy: NDArray[np.bool_], rng: np.random.Generator) -> list[Actor]:
    """Objects of one lane: arrivals at the phase's rate, started before frame 0, so that it is not empty."""
    walking = lane.sprites == (PERSON,)
    height = lane.height * spec.height
    speed = float(spec.width / (rng.uniform(8, 12) if walking else rng.uniform(2.5, 4.5)) / spec.fps)
    reach = height * max(sprite.aspect for sprite in lane.sprites)
    early_frames = round((spec.width + 2 * reach) / speed)
    rates = np.concatenate((np.full(early_frames, busy[0]), busy))
    chance = np.where(rates, spec.busy_arrivals_per_s, spec.calm_arrivals_per_s) / spec.fps / len(_LANES)
    starts = np.flatnonzero(rng.random(len(chance)) < chance) - early_frames
    actors: list[Actor] = []
    clear = float("-inf")
    times = np.arange(spec.frame_count, dtype=np.float64)
    for start in starts:
        if (start - clear) * speed < 1.3 * reach:
            continue
        clear = float(start)
        sprite = lane.sprites[rng.integers(len(lane.sprites))]
        travelled = (times - float(start)) * speed - reach / 2
        centre = travelled if lane.direction > 0 else spec.width - travelled
        tall = float(height * rng.uniform(0.9, 1.1))
        bottom = np.full(spec.frame_count, lane.bottom * spec.height)
        actors.append(Actor(sprite, random_colour(rng), centre, bottom, np.full(spec.frame_count, tall)))
    return actors


def random_colour(rng: np.random.Generator) -> Colour:
    """A random colour that is visible on road and sky."""
    red, green, blue = rng.integers(60, 240, 3)
    return int(red), int(green), int(blue)


def street_background(height: int, width: int, rng: np.random.Generator) -> Frames:
    """Sky, houses with windows, a road with lane marks; [H, W, 3]."""
    picture = np.empty((height, width, 3), np.uint8)
    horizon, kerb = round(0.45 * height), round(0.58 * height)
    sky = np.linspace(210, 170, horizon)[:, None, None] * np.array([0.85, 0.95, 1.0])
    picture[:horizon] = sky.astype(np.uint8)
    left = 0
    while left < width:
        right = left + max(4, round(width * rng.uniform(0.1, 0.25)))
        top = round(horizon * rng.uniform(0.1, 0.6))
        shade = rng.integers(90, 170, 3)
        picture[top:horizon, left:right] = shade
        step = max(4, height // 18)
        picture[top + step // 2 : horizon - step // 2 : step, left + step // 2 : right - 1 : step] = shade // 2
        left = right
    picture[horizon:kerb] = 150
    picture[kerb:] = 85
    mark = round(0.76 * height)
    dashes = np.arange(width)[:, None] % (width // 8 + 1) < width // 16
    picture[mark : mark + max(1, height // 90)] = np.where(dashes, 220, 85)
    return picture


def _occluder(spec: StreetSpec, rng: np.random.Generator) -> tuple[slice, slice, Colour]:
    """A trunk or kiosk in front of everything."""
    wide = max(2, round(spec.width * rng.uniform(0.01, 0.05)))
    left = int(rng.integers(0, spec.width - wide))
    top = round(spec.height * rng.uniform(0.2, 0.5))
    return slice(top, spec.height), slice(left, left + wide), (70, 60, 45)


def render(
    actors: Sequence[Actor],
    background: Frames,
    frame_count: int,
    fps: float,
    *,
    occluders: Sequence[tuple[slice, slice, Colour]] = (),
    least_visible: float = 0.25,
) -> tuple[Frames, tuple[FrameDetections, ...], tuple[tuple[float, ...], ...]]:
    """Draw actors in order, later ones in front, then occluders; return frames, truth and visible shares."""
    frames = np.repeat(background[None], frame_count, axis=0)
    truth, shares = [], []
    for index in range(frame_count):
        detections, seen = _draw(actors, frames[index], index, occluders, least_visible)
        truth.append(FrameDetections(index, index / fps, detections))
        shares.append(seen)
    return frames, tuple(truth), tuple(shares)


def _draw(
    actors: Sequence[Actor],
    picture: Frames,
    index: int,
    occluders: Sequence[tuple[slice, slice, Colour]],
    least_visible: float,
) -> tuple[tuple[Detection, ...], tuple[float, ...]]:
    owner = np.full(picture.shape[:2], -1, np.int32)
    drawn: list[tuple[int, int, tuple[int, int, int, int]]] = []
    for number, actor in enumerate(actors):
        box = _clip_box(actor.box(index), picture)
        if box is None:
            continue
        _paint(actor, index, picture, owner, number)
        x1, y1, x2, y2 = box
        drawn.append((number, int((owner[y1:y2, x1:x2] == number).sum()), box))
    for rows, columns, colour in occluders:
        picture[rows, columns] = colour
        owner[rows, columns] = -1
    detections, shares = [], []
    for number, whole_pixels, (x1, y1, x2, y2) in drawn:
        share = int((owner[y1:y2, x1:x2] == number).sum()) / max(1, whole_pixels)
        if whole_pixels and share >= least_visible:
            label = actors[number].sprite.label
            detections.append(Detection(label, 1.0, float(x1), float(y1), float(x2), float(y2)))
            shares.append(share)
    return tuple(detections), tuple(shares)


def _clip_box(box: tuple[int, int, int, int], picture: Frames) -> tuple[int, int, int, int] | None:
    """The part of a box inside the picture; None if there is none."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _paint(actor: Actor, index: int, picture: Frames, owner: NDArray[np.int32], number: int) -> None:
    x1, y1, x2, y2 = actor.box(index)
    wide, tall = x2 - x1, y2 - y1
    for u1, v1, u2, v2, shade in actor.sprite.parts:
        left, right = x1 + round(u1 * wide), x1 + max(round(u2 * wide), round(u1 * wide) + 1)
        top, bottom = y1 + round(v1 * tall), y1 + max(round(v2 * tall), round(v1 * tall) + 1)
        rows, columns = slice(max(0, top), max(0, bottom)), slice(max(0, left), max(0, right))
        picture[rows, columns] = np.clip(np.array(actor.colour) * shade, 0, 255).astype(np.uint8)
        owner[rows, columns] = number


def expose(frames: Frames, light: NDArray[np.float64], noise: float, rng: np.random.Generator) -> Frames:
    """Scale each frame by its light and add sensor noise.

    One noise field is shifted at random for every frame: as good as fresh noise to an encoder, and far cheaper.
    """
    count, height, width, _ = frames.shape
    field = rng.normal(0.0, noise, (height, width, 3)).astype(np.float32) if noise else np.zeros((1, 1, 1), np.float32)
    exposed = np.empty_like(frames)
    for index in range(count):
        shift = (int(rng.integers(height)), int(rng.integers(width)))
        noisy = frames[index] * np.float32(light[index]) + np.roll(field, shift, axis=(0, 1))
        exposed[index] = np.clip(noisy, 0, 255).astype(np.uint8)
    return exposed
