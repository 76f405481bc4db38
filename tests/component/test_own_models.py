"""A GGUF file of the user's: built by a command, offered by a node, refused by name where it cannot be."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.models import app
from skyshore.catalogue.entry import Kind
from skyshore.catalogue.errors import NotFetched, UnknownEntry
from skyshore.catalogue.store import add_own, kind_of, ready
from skyshore.domain.errors import InvalidTask
from skyshore.domain.llm import LlmInput, Sampling
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.worker.executor import ServedLlm
from skyshore.worker.onnx_engines import start_onnx
from skyshore.worker.settings import NodeSettings
from tests.data.llm_tiny_gguf import TinyLlama, write_tiny_gguf


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SKYSHORE_MODELS", str(folder))
    return folder


def write(path: Path) -> Path:
    return write_tiny_gguf(path, TinyLlama(hidden=128, ffn=192, context=4096))


async def test_a_node_offers_the_users_own_model(cache: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "Mine-1B.gguf")
    done = CliRunner().invoke(app, ["build", str(file), "--precision", "int8"])
    assert done.exit_code == 0, done.output
    assert kind_of("mine-1b") is Kind.LLM
    settings = NodeSettings(engine="onnx", id="n", models="mine-1b:int8", slots=2)
    async with AsyncExitStack() as stack:
        (served,) = (await start_onnx(settings, stack)).served
        assert isinstance(served, ServedLlm)
        assert served.arm.model.startswith("mine-1b")
        assert (served.arm.slots, served.arm.context_tokens) == (2, 2048)
        request = LlmInput(prompt_token_ids=(5, 6, 7), sampling=Sampling(max_tokens=4, temperature=0, ignore_eos=True))
        events = [event async for event in served.engine.generate(Task("t", TaskKind.LLM), request)]
        assert isinstance(events[-1], WorkerOutcome)
        assert events[-1].output_tokens == 4


def test_another_precision_is_built_from_the_same_file(cache: Path, tmp_path: Path) -> None:
    add_own(write(tmp_path / "mine.gguf"), "int4")
    done = CliRunner().invoke(app, ["build", "mine", "--precision", "fp32"])
    assert done.exit_code == 0, done.output
    assert (ready("mine") / "model-fp32.onnx").is_file()


def test_what_cannot_be_a_model_is_refused_by_name(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFetched, match="no file"):
        add_own(tmp_path / "absent.gguf", "int4")
    with pytest.raises(InvalidTask, match="rename"):
        add_own(write(tmp_path / "smollm2-135m.gguf"), "int4")
    with pytest.raises(InvalidTask, match="rename"):
        add_own(write(tmp_path / "my model.gguf"), "int4")
    whole = write(tmp_path / "cut.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    done = CliRunner().invoke(app, ["build", str(tmp_path / "cut.gguf")])
    assert done.exit_code == 1
    assert "cut.gguf" in done.output
    assert not (cache / "cut").exists(), "what cannot be built must not look like a model"
    with pytest.raises(UnknownEntry):
        ready("unknown-model")
