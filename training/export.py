"""What was trained as ONNX, and the card beside it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from skyshore.domain.errors import Internal

OPSET = 18


def export_onnx(
    model: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: tuple[dict[int, torch.export.Dim], ...] | None = None,
) -> None:
    """Write `model` as a self-contained graph."""
    with _quiet():
        program = torch.onnx.export(
            model.eval(),
            example,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise Internal("torch exported nothing; does this torch match pyproject's bound?")
    graph = program.model_proto
    del graph.graph.value_info[:]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, path)


def write_card(path: Path, card: Mapping[str, object]) -> None:
    """A model card as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter talks on stdout, logs about packages nobody asked for, and warns of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
