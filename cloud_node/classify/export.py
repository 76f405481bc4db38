"""Blocks as ONNX graphs: one stage per block, any batch, time and space, layout copies left to `fold`.

A stage contains no collective, because DSP cuts the model between blocks and leaves the modules as they are.
"""

from __future__ import annotations

from pathlib import Path

import torch

from cloud_node.classify.model import SPACE, TIME, Block
from cloud_node.dsp.fold import INPUT, OUTPUT
from cloud_node.dsp.onnx_engine import StageFile
from cloud_node.onnx_export import export_onnx


def export_block(block: Block, path: Path) -> None:
    """Write a block as the graph y = block(x), x: [B, T, S, C]."""
    channels = block.norm1.normalized_shape[0]
    example = torch.randn(2, 3, 5, channels)
    dims = {0: torch.export.Dim("batch"), TIME: torch.export.Dim("time"), SPACE: torch.export.Dim("space")}
    export_onnx(block, (example,), path, inputs=[INPUT], outputs=[OUTPUT], dynamic=({**dims},))


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
