"""Shipped networks: the numpy passes that decide are the ONNX graphs that ship, and quick enough."""

import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from skyshore.policies.papers.agod import STATE_WIDTH, DiffusionActor
from skyshore.profiling.preference import WIDTH, PreferenceNetwork

PREFERENCE = Path(str(files("skyshore.profiling"))) / "weights" / "preference.onnx"
AGOD = Path(str(files("skyshore.policies"))) / "weights" / "agod.onnx"


def session(model: Path) -> onnxruntime.InferenceSession:
    """Not our adapter's, which lets its thread round denormals to zero: here that would be every later test's too."""
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def test_the_preference_network_is_the_exported_one_task_after_task():
    graph, network, rng = session(PREFERENCE), PreferenceNetwork.shipped(), np.random.default_rng(0)
    state = network.fresh_state()
    hidden, cell = (np.zeros((len(state[0]), 1, state[0].shape[1]), np.float32) for _ in range(2))
    for _ in range(50):
        x = rng.uniform(0, 1, WIDTH).astype(np.float32)
        probability, state = network.step(x, state)
        wanted, hidden, cell = graph.run(None, {"x": x[None, None], "hidden": hidden, "cell": cell})
        assert probability == pytest.approx(float(wanted[0, 0]), abs=1e-5)
    np.testing.assert_allclose(state[0], hidden[:, 0], atol=1e-5)
    np.testing.assert_allclose(state[1], cell[:, 0], atol=1e-5)


def test_a_preference_costs_the_profiler_less_than_a_millisecond():
    network, times = PreferenceNetwork.shipped(), []
    state, x = network.fresh_state(), np.zeros(WIDTH, np.float32)
    for _ in range(300):
        started = time.perf_counter()
        _, state = network.step(x, state)
        times.append(time.perf_counter() - started)
    assert np.median(times) < 1e-3


@pytest.mark.parametrize("arms", [1, 2, 7, 300])
def test_the_agod_actor_is_the_exported_one_for_any_fleet(arms):
    rng = np.random.default_rng(arms)
    state = np.concatenate([np.ones((arms, 1)), rng.uniform(0, 2, (arms, STATE_WIDTH - 1))], axis=1)
    (wanted,) = session(AGOD).run(None, {"state": state.astype(np.float32)})
    np.testing.assert_allclose(DiffusionActor.shipped().logits(state), wanted, atol=1e-5)


@pytest.mark.parametrize("file", [PREFERENCE, AGOD])
def test_what_ships_is_small(file):
    assert sum(path.stat().st_size for path in file.parent.glob(f"{file.stem}.*")) < 1_000_000
