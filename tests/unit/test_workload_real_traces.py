"""The loaders give the published statistics of the real traces."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from skyshore.workload.cameras import objects_per_frame
from skyshore.workload.llm_traces import read_azure, read_mooncake, spread_ticks, tick_of
from skyshore.workload.load_statistics import load_statistics

DATA = Path(os.environ.get("SKYSHORE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def lines_of(name: str) -> list[str]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here; point SKYSHORE_SHARED_DATA at a folder that holds {name}")
    return path.read_text().splitlines(keepends=True)


def test_azure_conversation_is_close_to_poisson_at_5_53_per_second() -> None:
    arrivals = read_azure(lines_of("llm/AzureLLMInferenceTrace_conv.csv"))
    statistics = load_statistics([a.t_intended_s for a in arrivals], arrivals[-1].t_intended_s)
    assert tick_of(arrivals) == 0.0
    assert len(arrivals) == 19_366
    assert statistics.rate_per_s == pytest.approx(5.53, abs=0.01)
    assert statistics.gap_cv == pytest.approx(1.09, abs=0.01)
    assert statistics.idc_1s == pytest.approx(1.4, abs=0.1)
    assert np.mean([a.prompt_tokens for a in arrivals]) == pytest.approx(1155, abs=1)
    assert np.mean([a.output_tokens for a in arrivals]) == pytest.approx(211, abs=1)


def test_mooncake_burstiness_is_an_artefact_of_its_three_second_ticks() -> None:
    arrivals = read_mooncake(lines_of("llm/mooncake_conversation_trace.jsonl"))
    assert len(arrivals) == 12_031
    assert tick_of(arrivals) == 3.0
    raw = load_statistics([a.t_intended_s for a in arrivals], arrivals[-1].t_intended_s)
    spread = spread_ticks(arrivals, 3.0, np.random.default_rng(1))
    smooth = load_statistics([a.t_intended_s for a in spread], arrivals[-1].t_intended_s + 3)
    assert raw.gap_cv == pytest.approx(3.03, abs=0.01)
    assert smooth.gap_cv == pytest.approx(1.01, abs=0.03)


def test_mot_ground_truth_has_the_published_number_of_frames_and_objects() -> None:
    counts = objects_per_frame(lines_of("video/TUD-Campus_gt.txt"))
    assert len(counts) == 71
    assert np.mean(counts) == pytest.approx(5.1, abs=0.1)
