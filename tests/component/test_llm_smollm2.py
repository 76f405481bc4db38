"""The real model, SmolLM2-135M: our text equals that of `transformers`, and company changes nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skyshore.adapters.tokenizer import Tokenizer
from skyshore.catalogue.llama.build import build
from skyshore.catalogue.store import cache_dir
from skyshore.domain.llm import ChatMessage, LlmInput, Sampling, TokenChunk
from skyshore.domain.task import Task, TaskKind
from skyshore.engines.llm.decoder import Decoder
from skyshore.engines.llm.engine import OnnxLlmEngine
from skyshore.engines.llm.settings import LlmEngineSettings
from tests.data.llm_tiny_gguf import TinyLlama, write_tiny_gguf

SOURCE = cache_dir() / "smollm2-135m" / "model.gguf"
GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "llm_golden.json").read_text(encoding="utf-8"))
needs_model = pytest.mark.skipif(
    not SOURCE.is_file(), reason="SmolLM2-135M is not in the cache; run `skyshore models fetch smollm2-135m`"
)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("smollm2")
    yield folder
    shutil.rmtree(folder)  # most of a gigabyte, which pytest would keep for three runs


def once(folder: Path, precision: str, **options: int) -> Path:
    name = f"model-{precision}-exact.onnx" if options else f"model-{precision}.onnx"
    return folder / name if (folder / name).exists() else build(SOURCE, folder, precision, **options)


def task() -> Task:
    return Task("t", TaskKind.LLM, deadline_s=600)


async def text_of(engine: OnnxLlmEngine, request: LlmInput) -> str:
    return "".join([item.text async for item in engine.generate(task(), request) if isinstance(item, TokenChunk)])


@needs_model
async def test_fp32_text_equals_transformers_over_64_tokens_batched(built: Path) -> None:
    once(built, "fp32")
    engine = await OnnxLlmEngine.start(LlmEngineSettings(built, precision="fp32", context_tokens=256, slots=10))
    chosen = Sampling(max_tokens=64, temperature=0, ignore_eos=True)
    texts = await asyncio.gather(
        *(
            text_of(engine, LlmInput(messages=(ChatMessage("user", case["question"]),), sampling=chosen))
            for case in GOLDEN["cases"]
        )
    )
    await engine.close()
    assert len(texts) == 10
    assert texts == [case["text"] for case in GOLDEN["cases"]]


def check_teacher_forced(decoder: Decoder, case: dict[str, Any]) -> None:
    """At every one of the 64 positions our arg-max is the reference's next token, so greedy text is the same."""
    prompt, generated = case["prompt_token_ids"], case["token_ids"]
    logits = decoder.all_logits(prompt + generated)[len(prompt) - 1 : -1]
    assert logits.argmax(axis=1).tolist() == generated
    for token, value in case["first_logits"].items():
        assert logits[0, int(token)] == pytest.approx(value, abs=1e-3)


@needs_model
@pytest.mark.parametrize(("precision", "options"), [("fp32", {}), ("q4x", {"accuracy_level": 0})])
def test_exact_precisions_give_the_logits_of_transformers(built: Path, precision: str, options: dict[str, int]) -> None:
    path = once(built, precision, **options)
    decoder = Decoder(path, slots=1, capacity_tokens=256, threads=1)
    for case in GOLDEN["cases"]:
        check_teacher_forced(decoder, case)


@needs_model
def test_prompts_are_tokenised_as_transformers_does(built: Path) -> None:
    once(built, "int4")
    tokenizer = Tokenizer.open(built)
    for case in GOLDEN["cases"]:
        messages = (ChatMessage("user", case["question"]),)
        assert tokenizer.render_chat(messages) == case["prompt"]
        assert tokenizer.encode_chat(messages) == case["prompt_token_ids"]
        assert tokenizer.decode(case["token_ids"]) == case["text"]


@needs_model
@pytest.mark.parametrize("precision", ["int4", "w8a8"])
async def test_rounded_precisions_answer_the_same_alone_and_in_company(built: Path, precision: str) -> None:
    once(built, precision)
    settings = LlmEngineSettings(built, precision=precision, context_tokens=512, slots=4, threads=2)
    engine = await OnnxLlmEngine.start(settings)
    requests = [
        LlmInput(
            messages=(ChatMessage("user", "Tell me about the sea. " * (1 + 7 * (number % 3)) + f"Part {number}."),),
            sampling=Sampling(max_tokens=8 + 5 * number, temperature=0.7 * (number % 2), seed=number, ignore_eos=True),
        )
        for number in range(7)
    ]
    together = await asyncio.gather(*(text_of(engine, request) for request in requests))
    alone = [await text_of(engine, request) for request in requests]
    await engine.close()
    assert list(together) == alone


def test_logits_equal_transformers_live(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF only with accelerate")
    torch = pytest.importorskip("torch", reason="the live comparison needs torch")
    source = write_tiny_gguf(tmp_path / "model.gguf", TinyLlama(hidden=96, heads=6, kv_heads=2))
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        str(tmp_path), gguf_file=source.name, dtype=torch.float32, local_files_only=True
    )
    tokens = [5, 100, 7, 7, 250, 33, 19, 260, 1, 2, 77]
    with torch.no_grad():
        expected = reference(torch.tensor([tokens])).logits[0].numpy()
    for precision, level in (("fp32", 4), ("q4x", 0)):
        path = build(source, tmp_path / precision, precision, accuracy_level=level)
        found = Decoder(path, slots=1, capacity_tokens=32, threads=1).all_logits(tokens)
        np.testing.assert_allclose(found, expected, atol=1e-3)
