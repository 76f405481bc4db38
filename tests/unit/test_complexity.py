"""Spatial complexity behaves as arXiv 2003.04632 and the arithmetic of nested blocks say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from skyshore.profiling.complexity import canvas, complexity_vector, entropy_2d, structural_complexity

RNG = np.random.default_rng(7)
NOISE = RNG.uniform(-1, 1, (256, 256)).astype(np.float32)
RAMP = np.tile(np.linspace(-1, 1, 256, dtype=np.float32), (256, 1))
BLOCKS = np.kron(RNG.uniform(-1, 1, (16, 16)), np.ones((16, 16))).astype(np.float32)


def by_definition(grey: np.ndarray, scales: int) -> list[float]:
    """Write every f_k out at full size, as the paper does, and take the mean squared step."""
    full, answer = grey.astype(np.float64), []
    for k in range(scales):
        side = 2 ** (k + 1)
        n = len(full) // side
        coarse = np.kron(full.reshape(n, side, n, side).mean(axis=(1, 3)), np.ones((side, side)))
        overlap = np.mean(coarse * full)
        answer.append(abs(overlap - (np.mean(full * full) + np.mean(coarse * coarse)) / 2))
        full = coarse
    return answer


@pytest.mark.parametrize("grey", [NOISE, RAMP, BLOCKS], ids=["noise", "ramp", "blocks"])
def test_each_scale_is_the_papers_overlap_formula(grey: np.ndarray) -> None:
    assert structural_complexity(grey) == pytest.approx(by_definition(grey, 8), abs=1e-9)


@pytest.mark.parametrize("grey", [NOISE, RAMP, BLOCKS], ids=["noise", "ramp", "blocks"])
def test_the_sum_over_all_scales_is_half_the_variance(grey: np.ndarray) -> None:
    assert structural_complexity(grey).sum() == pytest.approx(np.var(grey.astype(np.float64)) / 2, rel=1e-9)


def test_pictures_of_like_contrast_differ_from_scale_one_on() -> None:
    coarse = {name: structural_complexity(g)[1:].sum() for name, g in [("noise", NOISE), ("ramp", RAMP)]}
    assert coarse["noise"] == pytest.approx(0.042, abs=0.002)
    assert coarse["ramp"] == pytest.approx(0.168, abs=0.002)


def test_structure_shows_at_its_own_scale() -> None:
    assert np.flatnonzero(structural_complexity(BLOCKS) > 1e-12).tolist() == [4, 5, 6, 7]  # blocks of 16 = 2 ** 4


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_any_shape_gives_finite_non_negative_figures(luma: np.ndarray) -> None:
    vector = complexity_vector(luma)
    assert len(vector) == 9
    assert all(np.isfinite(v) and v >= 0 for v in vector)


@given(arrays.arrays(np.uint8, (32, 48)), st.integers(2, 3))
def test_enlarging_a_picture_by_whole_factors_changes_nothing_on_the_canvas(luma: np.ndarray, factor: int) -> None:
    larger = np.kron(luma, np.ones((factor, factor), np.uint8))
    assert canvas(larger, 16) == pytest.approx(canvas(luma, 16), abs=1e-5)


def test_entropy_is_zero_for_a_flat_picture_and_one_bit_for_two_halves() -> None:
    assert entropy_2d(np.zeros((256, 256), np.float32)) == 0.0
    halves = np.where(np.arange(256) < 128, -0.9, 0.9).astype(np.float32) * np.ones((256, 1), np.float32)
    # Two columns at the seam see a neighbourhood of their own: a little over one bit.
    assert 1.0 < entropy_2d(halves) < 1.15


def test_noise_has_more_entropy_than_a_ramp_and_a_ramp_more_than_nothing() -> None:
    assert entropy_2d(NOISE) > entropy_2d(RAMP) > 0
