"""The classifier: its parts can be cut, training renames what it turns round, and what ships is as good as it says."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cloud_node.classify.model import CHANNELS_IN, SPACE, TIME, ModelConfig, RowLinear, SpaceTimeTransformer  # noqa: E402
from cloud_node.classify.weights import ModelCard, load, save  # noqa: E402
from skyshore.domain.errors import NotFound  # noqa: E402

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
