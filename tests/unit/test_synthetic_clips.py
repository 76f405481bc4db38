"""The clips a seed draws: repeatable, with boxes that are exact to the pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.errors import InvalidTask
from skyshore.workload.synthetic.actions import ACTIONS, ActionSpec, action_batch, action_clip
from skyshore.workload.synthetic.clips import BUS, CAR, PERSON, Actor, StreetSpec, expose, render, street_clip

SMALL = StreetSpec(width=160, height=90, frame_count=40, fps=10.0)
PLAIN = np.full((60, 100, 3), 7, np.uint8)


def still(sprite, x: float, bottom: float, height: float, count: int = 1) -> Actor:
    ones = np.ones(count)
    return Actor(sprite, (200, 120, 90), x * ones, bottom * ones, height * ones)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([CAR, BUS, PERSON]), st.floats(-20, 120), st.floats(5, 80), st.floats(4, 40))
def test_a_box_holds_exactly_the_pixels_that_were_drawn(sprite, x: float, bottom: float, height: float) -> None:
    frames, truth, visible = render([still(sprite, x, bottom, height)], PLAIN, 1, 1.0)
    changed = (frames[0] != PLAIN).any(-1)
    if not changed.any():
        assert truth[0].detections == ()
        return
    (box,) = truth[0].detections
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    inside = (x - height * sprite.aspect / 2 - 1 >= 0 and x + height * sprite.aspect / 2 + 1 <= 100) and (
        bottom <= 59 and bottom - height >= 1
    )
    assert box.x1 <= columns[0] and columns[-1] < box.x2
    assert box.y1 <= rows[0] and rows[-1] < box.y2
    if inside:
        assert (box.x1, box.y1, box.x2, box.y2) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert box.label == sprite.label
    assert visible[0] == (1.0,)


def test_who_stands_in_front_hides_who_stands_behind() -> None:
    behind, before = still(CAR, 50, 40, 20), still(PERSON, 50, 45, 30)
    _, truth, visible = render([behind, before], PLAIN, 1, 1.0)
    assert [box.label for box in truth[0].detections] == ["car", "person"]
    assert visible[0][0] < 0.9
    assert visible[0][1] == 1.0
    wall = (slice(0, 60), slice(30, 56), (1, 1, 1))
    _, truth, visible = render([behind, before], PLAIN, 1, 1.0, occluders=[wall])
    assert [box.label for box in truth[0].detections] == ["car"]
    assert visible[0][0] < 0.6
    _, truth, _ = render([behind], PLAIN, 1, 1.0, occluders=[(slice(0, 60), slice(0, 100), (1, 1, 1))])
    assert truth[0].detections == ()


def test_the_same_seed_draws_the_same_street_and_another_does_not() -> None:
    first, again, other = (street_clip(SMALL, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.frames, again.frames)
    assert first.truth == again.truth
    assert not np.array_equal(first.frames, other.frames)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_a_street_keeps_its_books(seed: int) -> None:
    clip = street_clip(SMALL, np.random.default_rng(seed))
    assert clip.frames.shape == (40, 90, 160, 3)
    assert len(clip.truth) == len(clip.visible) == len(clip.busy) == 40
    for index, (found, shares) in enumerate(zip(clip.truth, clip.visible, strict=True)):
        assert found.frame_index == index
        assert found.timestamp_s == index / 10.0
        assert len(found.detections) == len(shares)
        assert all(0.25 <= share <= 1.0 for share in shares)
        for box in found.detections:
            assert 0 <= box.x1 < box.x2 <= 160
            assert 0 <= box.y1 < box.y2 <= 90
            assert box.label in {"car", "bus", "person"}


def test_busy_phases_bring_more_objects_and_both_kinds_of_phase_occur() -> None:
    spec = StreetSpec(width=64, height=36, frame_count=200, fps=4.0, phase_s=12.0, occluders=0)
    clips = [street_clip(spec, np.random.default_rng(seed)) for seed in range(4)]
    counts = np.array([len(found.detections) for clip in clips for found in clip.truth])
    busy = np.array([flag for clip in clips for flag in clip.busy])
    assert 0.1 < busy.mean() < 0.9
    assert counts[busy].mean() > 1.5 * counts[~busy].mean()


def test_light_and_noise_do_what_they_say() -> None:
    frames = np.full((2, 40, 40, 3), 100, np.uint8)
    lit = expose(frames, np.array([1.0, 0.5]), 4.0, np.random.default_rng(0))
    assert lit[0].mean() == pytest.approx(99.5, abs=1)
    assert lit[1].mean() == pytest.approx(49.5, abs=1)
    assert lit[0].std() == pytest.approx(4.0, rel=0.1)
    assert not np.array_equal(lit[0] - lit[0].min(), lit[1] - lit[1].min())


def centroid_speed(frames: np.ndarray) -> float:
    """Pixels per frame, to the right, of where the picture changes."""
    change = np.abs(np.diff(frames.astype(int), axis=0)).max(-1).astype(float)
    change = np.maximum(change - 25, 0).sum(1)
    centre = (change * np.arange(frames.shape[2])).sum(1) / (change.sum(1) + 1e-9)
    return float(np.polyfit(np.arange(len(centre)), centre, 1)[0])


def test_actions_move_as_they_are_called() -> None:
    rng = np.random.default_rng(0)
    quiet = ActionSpec(noise=0.0)
    for _ in range(8):
        assert centroid_speed(action_clip("drive_right", quiet, rng)) > 0.8
        assert centroid_speed(action_clip("drive_left", quiet, rng)) < -0.8


def test_single_frames_of_opposite_actions_look_alike() -> None:
    """A drive seen backwards is the other drive: the set of frames is the same, only their order differs."""
    pixels = {}
    for action in ("drive_right", "drive_left"):
        rng = np.random.default_rng(1)
        clips = np.stack([action_clip(action, ActionSpec(noise=0.0), rng) for _ in range(60)])
        pixels[action] = clips.astype(float).mean((0, 1, 3, 4))
    assert np.abs(pixels["drive_right"] - pixels["drive_left"]).max() < 0.15 * pixels["drive_right"].mean()


def test_batches_are_repeatable_and_labelled() -> None:
    clips, labels = action_batch(12, ActionSpec(), np.random.default_rng(5))
    again, _ = action_batch(12, ActionSpec(), np.random.default_rng(5))
    assert clips.shape == (12, 8, 48, 48, 3)
    assert np.array_equal(clips, again)
    assert set(labels) <= set(range(len(ACTIONS)))
    with pytest.raises(InvalidTask, match="no action called jump"):
        action_clip("jump", ActionSpec(), np.random.default_rng(0))
