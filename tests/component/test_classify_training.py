"""Training the classifier: it is repeatable, it renames mirrored clips, and the shipped weights keep their promise."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")

from cloud_node.classify.model import ModelConfig  # noqa: E402
from cloud_node.classify.train import Clips, TrainSettings, augment, draw, fit, one_frame, score  # noqa: E402
from cloud_node.classify.weights import SHIPPED, load  # noqa: E402
from skyshore.workload.synthetic.actions import ACTIONS, ActionSpec, action_clip  # noqa: E402


def test_turning_a_clip_round_renames_its_action() -> None:
    """Mirrored and reversed at random, a clip must still do what its label says; seen on drives, by their direction."""
    rng = np.random.default_rng(0)
    spec = ActionSpec(noise=0.0)
    names = ["drive_right", "drive_left"] * 12
    frames = torch.from_numpy(np.stack([action_clip(name, spec, rng) for name in names]))
    before = Clips(frames, torch.tensor([ACTIONS.index(name) for name in names]))
    after = augment(before, rng)
    assert not torch.equal(after.frames, before.frames)
    columns = np.arange(48)
    for clip, label in zip(after.frames.numpy().astype(int), after.labels, strict=True):
        change = np.maximum(np.abs(np.diff(clip, axis=0)).max(-1) - 25, 0).sum(1)
        speed = np.polyfit(np.arange(7), (change * columns).sum(1) / (change.sum(1) + 1e-9), 1)[0]
        assert ACTIONS[label] == ("drive_right" if speed > 0 else "drive_left")
    pairs = {"approach": "recede", "meet": "part", "follow": "follow", "overtake": "overtake"}
    for action, backwards in pairs.items():
        clips = Clips(torch.zeros(64, 8, 4, 4, 3, dtype=torch.uint8), torch.full((64,), ACTIONS.index(action)))
        seen = {ACTIONS[label] for label in augment(clips, rng).labels}
        assert seen == {action, backwards}


def test_the_same_seed_trains_the_same_weights() -> None:
    short = TrainSettings(clips=32, steps=4, batch=8, model=ModelConfig(channels=16, heads=2, pairs=1))
    clips = draw(32, short.spec, np.random.default_rng(1))
    first, again = (fit(short, clips, np.random.default_rng(2), lambda _: None) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


def test_what_ships_is_small_and_its_card_is_true() -> None:
    """Held-out accuracy on clips from yet another seed; three standard errors of slack for the small sample."""
    files = list(SHIPPED.parent.iterdir())
    assert sum(file.stat().st_size for file in files) <= 5_000_000
    model, card = load(SHIPPED)
    assert card.labels == ACTIONS
    assert card.heldout_accuracy >= 0.95
    assert card.single_frame_accuracy < 0.4
    accuracy = score(model, draw(160, ActionSpec(), np.random.default_rng(20_260)))
    slack = 3 * (card.heldout_accuracy * (1 - card.heldout_accuracy) / 160) ** 0.5
    assert accuracy >= card.heldout_accuracy - slack


def test_without_motion_the_model_knows_nothing() -> None:
    """The same clips with one frame repeated: what is left is guessing."""
    model, _ = load(SHIPPED)
    clips = draw(96, ActionSpec(), np.random.default_rng(11))
    frozen = one_frame(clips, np.random.default_rng(0)).frames.expand(-1, 8, -1, -1, -1).contiguous()
    assert score(model, Clips(frozen, clips.labels)) < 0.35
