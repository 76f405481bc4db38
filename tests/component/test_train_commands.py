"""`skyshore train` from end to end, too short to learn much: files that can be read, a card that says what was done."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skyshore.catalogue.errors import NotFetched
from skyshore.catalogue.store import ready
from skyshore.policies.papers.agod import STATE_WIDTH, DiffusionActor
from skyshore.profiling.preference import WIDTH, PreferenceNetwork

pytest.importorskip("torch", reason="training needs torch: pip install 'skyshore[cloud]'")


def train(*words: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "train", *words, "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    card: dict[str, object] = json.loads(done.stdout)
    return card


@pytest.mark.timeout(300)
def test_train_preference_writes_network_graph_card_and_clip_table(tmp_path: Path):
    for name in ("bikes", "vtest", "ssd-mobilenet", "nanodet", "yolov5s"):
        try:
            ready(name)
        except NotFetched as error:
            pytest.skip(str(error))
    clips = tmp_path / "clips.json"
    small = ("--drawn", "2", "--cameras", "1", "--judged", "1", "--seeds", "2", "--epochs", "1")
    card = train("preference", "--out", str(tmp_path), "--clips", str(clips), *small)
    assert card == json.loads((tmp_path / "preference.json").read_text())
    assert card["heldout_figures"]["lstm_macro_f1"]["half_width"] >= 0
    network = PreferenceNetwork.from_bytes((tmp_path / "preference.npz").read_bytes())
    probability, _ = network.step(np.zeros(WIDTH, np.float32), network.fresh_state())
    assert 0 < probability < 1
    assert (tmp_path / "preference.onnx").stat().st_size > 0
    assert json.loads(clips.read_text())["vtest"]["frames"] == 795


@pytest.mark.timeout(300)
def test_train_agod_writes_an_actor_that_answers_for_any_fleet(tmp_path: Path):
    card = train("agod", "--out", str(tmp_path), "--fleets", "1", "--judged", "1", "--seconds", "3")
    assert set(card["heldout_figures"]) == {"agod", "random", "least_loaded", "shortest_delay", "cs_ucb"}
    actor = DiffusionActor.from_bytes((tmp_path / "agod.npz").read_bytes())
    assert actor.logits(np.ones((3, STATE_WIDTH))).shape == (3,)
    assert (tmp_path / "agod.onnx").stat().st_size > 0
