"""`skyshore train`: makes the small models that ship with Skyshore, from seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def _train() -> None:
    """Train the small models that ship with Skyshore."""


@app.command()
def classify(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the weights and the ONNX stages.")] = Path(
        "cloud_node/classify/weights"
    ),
    seed: Annotated[int, typer.Option(help="Seed of clips, weights and order.")] = 7,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps; about 0.2 CPU seconds each.")] = 3600,
    clips: Annotated[int, typer.Option(min=32, help="Clips to draw and learn from.")] = 8192,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Train the action classifier of `video.classify` on synthetic clips, and its single-frame control."""
    import torch  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    from cloud_node.classify.export import export_stages  # noqa: PLC0415
    from cloud_node.classify.train import TrainSettings, train_classifier  # noqa: PLC0415
    from cloud_node.classify.weights import save  # noqa: PLC0415

    torch.set_num_threads(threads)
    console = Console(stderr=True)
    settings = TrainSettings(seed=seed, steps=steps, clips=clips)
    model, card = train_classifier(settings, lambda line: console.print(line, highlight=False))
    save(out / "actions.npz", model, card)
    console.print("exporting the stages to ONNX")
    export_stages(model.spatial_temporal_blocks(), out)
    console.print(
        f"{out}: {card.heldout_accuracy:.1%} of {card.heldout_clips} held-out clips named right, "
        f"{card.single_frame_accuracy:.1%} by the single-frame control"
    )
