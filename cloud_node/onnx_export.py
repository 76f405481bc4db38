"""Torch modules as ONNX graphs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from skyshore.domain.errors import Internal

OPSET = 18
"""Split with a run-time size list and Concat of any arity; every supported ONNX Runtime has it."""


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's exporter, which prints, logs about unrelated packages, and warns of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
