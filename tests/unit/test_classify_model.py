"""The classifier: its parts can be cut, training renames what it turns round, and what ships is as good as it says."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cloud_node.classify.model import CHANNELS_IN, SPACE, TIME, ModelConfig, RowLinear, SpaceTimeTransformer  # noqa: E402
from cloud_node.classify.train import Clips, TrainSettings, augment, draw, fit, one_frame, score  # noqa: E402
from cloud_node.classify.weights import SHIPPED, ModelCard, load, save  # noqa: E402
from skyshore.domain.errors import NotFound  # noqa: E402
from skyshore.workload.synthetic.actions import ACTIONS, ActionSpec, action_clip  # noqa: E402

TINY = ModelConfig(frames=4, height=24, width=24, patch=12, channels=16, heads=2, pairs=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 24), st.integers(0, 23), st.sampled_from([(64, 192), (256, 64), (64, 8)]))
def test_a_row_does_not_depend_on_its_company(rows: int, first: int, sizes: tuple[int, int]) -> None:
    """Bit for bit: libraries add in another order for one to three rows, and a shard may hold so few."""
    torch.set_num_threads(1)
    layer, x = RowLinear(*sizes), torch.randn(48, sizes[0], generator=torch.Generator().manual_seed(rows))
    with torch.inference_mode():
        assert torch.equal(layer(x)[first : first + rows], layer(x[first : first + rows]))


@pytest.mark.parametrize("dim", [TIME, SPACE])
def test_embedding_a_part_is_the_part_of_the_embedding(dim: int) -> None:
    torch.manual_seed(0)
    model = SpaceTimeTransformer(TINY).eval()
    patches = model.patches(torch.randint(0, 256, (2, 4, 24, 24, 3), dtype=torch.uint8))
    assert patches.shape == (2, 4, 4, 12 * 12 * CHANNELS_IN)
    with torch.inference_mode():
        whole = model.embed(patches)
        starts = {"time_start" if dim == TIME else "space_start": 2}
        assert torch.equal(model.embed(patches.narrow(dim, 2, 2), **starts), whole.narrow(dim, 2, 2))


def test_patches_show_what_moved_and_nothing_else() -> None:
    frames = torch.full((1, 4, 24, 24, 3), 90, dtype=torch.uint8)
    frames[0, 2, 3, 5] = 200  # one pixel lights up in the third frame, in the first patch
    levels = SpaceTimeTransformer(TINY).patches(frames).view(4, 4, 144, CHANNELS_IN)
    change, drift = levels[..., 3], levels[..., 4].int() - 128
    assert change[2, 0, 3 * 12 + 5] == change[3, 0, 3 * 12 + 5] == 110
    assert int(change.sum()) == 220
    assert drift[2, 0, 3 * 12 + 5] == 55
    assert int((drift != 0).sum()) == 1


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
    few = TrainSettings(clips=32, steps=4, batch=8, model=ModelConfig(channels=16, heads=2, pairs=1))
    clips = draw(32, few.spec, np.random.default_rng(1))
    first, again = (fit(few, clips, np.random.default_rng(2), lambda _: None) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


def test_weights_come_back_as_they_were_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SpaceTimeTransformer(TINY).eval()
    card = ModelCard("m", ("a", "b"), 1, 2, 3, 0.5, 0.25, "here")
    save(tmp_path / "deep" / "m.npz", model, card)
    loaded, read = load(tmp_path / "deep" / "m.npz")
    frames = torch.randint(0, 256, (1, 4, 24, 24, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(loaded(frames), model(frames))
    assert read == card
    assert loaded.config == TINY
    with pytest.raises(NotFound, match="skyshore train classify"):
        load(tmp_path / "absent.npz")


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
