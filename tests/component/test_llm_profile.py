"""`skyshore profile llm`: what it measures, and that nodes read what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skyshore.catalogue.errors import NotFetched
from skyshore.catalogue.llama.build import build
from skyshore.catalogue.store import ready
from skyshore.engines.llm.decoder import Decoder
from skyshore.nodemodel.document import profile_from_document
from skyshore.worker.llm_profile import (
    DECODE_STEPS,
    PrecisionProfile,
    SpeedPoint,
    TextQuality,
    measure,
    text_quality,
    to_speed,
    top_tokens_and_loss,
)
from tests.data.llm_tiny_gguf import TinyLlama, write_tiny_gguf

TEXT = [(11 * place) % 250 for place in range(300)]


class TenJoulesACall:
    source = "measured:test"

    def __init__(self) -> None:
        self._spent = 0.0

    def joules(self) -> float:
        self._spent += 10.0
        return self._spent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    source = write_tiny_gguf(made / "model.gguf", TinyLlama(hidden=128, ffn=192, heads=4, kv_heads=1, head_dim=64))
    for precision in ("fp32", "int4"):
        build(source, made, precision)
    return made


def decoder(folder: Path, precision: str) -> Decoder:
    return Decoder(folder / f"model-{precision}.onnx", slots=5, capacity_tokens=320, threads=1)


def test_every_cell_is_measured_and_charged(folder: Path) -> None:
    cells, watts = measure(decoder(folder, "int4"), (1, 4), (16, 64), meter=TenJoulesACall(), idle_watts=0.0)
    assert [(cell.kind, cell.batch, cell.context) for cell in cells] == [
        *(("prefill", 1, 16), ("decode", 1, 16), ("decode", 4, 16)),
        *(("prefill", 1, 64), ("decode", 1, 64), ("decode", 4, 64)),
    ]
    assert all(cell.run_s > 0 for cell in cells)
    spent = {(cell.kind, cell.batch, cell.context): cell.joules_per_token for cell in cells}
    assert spent["prefill", 1, 64] == pytest.approx(10 / 64)
    assert spent["decode", 4, 16] == pytest.approx(10 / DECODE_STEPS / 4)
    assert watts > 0


def test_perplexity_is_that_of_the_definition_and_rounding_costs_agreement(folder: Path) -> None:
    exact = decoder(folder, "fp32")
    tops, loss, counted = top_tokens_and_loss(exact, TEXT)
    assert len(tops) == len(TEXT)
    assert counted == len(TEXT) - 2, "the first token of each window is not predicted"
    logits = exact.all_logits(TEXT[256:]).astype(np.float64)
    last = (
        sum(np.log(np.exp(row).sum()) - row[token] for row, token in zip(logits[:-1], TEXT[257:], strict=True))
        + top_tokens_and_loss(exact, TEXT[:256])[1]
    )
    assert loss == pytest.approx(last)
    assert text_quality(exact, TEXT, tops).agreement == 1.0
    rounded = text_quality(decoder(folder, "int4"), TEXT, tops)
    assert rounded.agreement < 1.0
    assert rounded.perplexity > 1.0


def test_the_line_through_the_cells_gives_their_times_back() -> None:
    cells = tuple(
        [SpeedPoint("prefill", 1, context, 0.01 * (1 + context // 257) + context * 2e-3, 0.0) for context in (128, 512)]
        + [SpeedPoint("decode", batch, 128, 0.01 + 0.003 * batch, 0.0) for batch in (1, 4, 16)]
    )
    found = PrecisionProfile("m", "int4", 1, cells, TextQuality(20.0, 0.7, 100), "measured:test", 12.0, 64)
    speed = to_speed(found, 0.5, slots=4, kv_tokens=300, context_tokens=100, source="measured:test")
    assert speed.iteration_time_s(0, 8) == pytest.approx(0.034, rel=1e-3)
    assert speed.prefill_token_s == pytest.approx(2e-3, rel=0.05)
    assert (speed.model, speed.quality, speed.busy_watts) == ("m:int4", 0.35, 12.0)


@pytest.mark.timeout(300)
def test_the_command_writes_a_profile_nodes_can_read(tmp_path: Path) -> None:
    try:
        ready("smollm2-135m")
    except NotFetched as missing:
        pytest.skip(missing.message)
    out = tmp_path / "node.json"
    words = ["llm", "--precisions", "int4", "--batches", "1,2", "--contexts", "16", "--out", str(out), "--json"]
    command = [sys.executable, "-m", "cli", "profile", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    (precision,) = printed["precisions"]
    assert 15 < precision["quality"]["perplexity"] < 60
    assert 0.5 < precision["quality"]["agreement"] < 0.9
    assert [cell["kind"] for cell in precision["cells"]] == ["prefill", "decode", "decode"]
    (speed,) = profile_from_document(json.loads(out.read_text())).llm
    assert speed.model == "smollm2-135m:int4"
    assert speed.kv_tokens == (512 << 20) // (30 * 2 * 3 * 64 * 4), "what the default budget holds, not slots x context"
    assert speed.prefill_tokens_per_s > speed.decode_tokens_per_s > 0
    again = subprocess.run(
        [*command[:-1], "--batches", "none"], capture_output=True, text=True, timeout=150, check=False
    )
    assert again.returncode != 0
    assert "whole numbers" in again.stderr
