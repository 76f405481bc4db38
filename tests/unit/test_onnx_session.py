"""Providers are chosen from what is present, in the order wanted, and never silently replaced."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from skyshore.adapters.onnx_session import OnnxSession, choose_providers
from skyshore.domain.errors import NotFound

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


@pytest.mark.parametrize(
    ("present", "wanted", "chosen"),
    [
        ([CPU], (), [CPU]),
        ([TENSORRT, CUDA, CPU], (), [CUDA, CPU]),
        ([TENSORRT, CUDA, CPU], (TENSORRT, CPU), [TENSORRT, CPU]),
        ([CUDA, CPU], (CPU,), [CPU]),
    ],
)
def test_the_best_present_provider_is_taken(
    monkeypatch: pytest.MonkeyPatch, present: list[str], wanted: tuple[str, ...], chosen: list[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: present)
    assert choose_providers(wanted) == chosen


def test_a_provider_that_is_asked_for_and_absent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(NotFound, match="CUDAExecutionProvider"):
        choose_providers((CUDA,))


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"absent\.onnx"):
        OnnxSession(tmp_path / "absent.onnx")
