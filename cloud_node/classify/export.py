"""Blocks as ONNX graphs: one stage per block, any batch, time and space, layout copies left to `fold`.

A stage contains no collective, because DSP cuts the model between blocks and leaves the modules as they are.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch

from cloud_node.classify.model import SPACE, TIME, Block
from cloud_node.dsp.fold import INPUT, OUTPUT
from cloud_node.dsp.onnx_engine import StageFile
from skyshore.domain.errors import Internal

OPSET = 18
"""Split with a run-time size list and Concat of any arity; every supported ONNX Runtime has it."""


def export_block(block: Block, path: Path) -> None:
    """Write a block as the graph y = block(x), x: [B, T, S, C]."""
    channels = block.norm1.normalized_shape[0]
    example = torch.randn(2, 3, 5, channels)
    dims = {0: torch.export.Dim("batch"), TIME: torch.export.Dim("time"), SPACE: torch.export.Dim("space")}
    with _quiet():
        program = torch.onnx.export(
            block.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({**dims},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise Internal("torch exported nothing; does this torch match pyproject's bound?")
    model = program.model_proto
    del model.graph.value_info[:]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def export_stages(blocks: list[Block], folder: Path) -> list[StageFile]:
    """Write every block; the result is in the order of the blocks."""
    files = stage_files(blocks, folder)
    for block, file in zip(blocks, files, strict=True):
        export_block(block, file.path)
    return files


def stage_files(blocks: list[Block], folder: Path) -> list[StageFile]:
    """Where `export_stages` writes, or wrote, the blocks."""
    return [
        StageFile(folder / f"stage{index}.onnx", block.axis, TIME if block.axis == SPACE else SPACE)
        for index, block in enumerate(blocks)
    ]


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
