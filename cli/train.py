"""`skyshore train`: trains the small models of Skyshore from a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def _train() -> None:
    """Train the small models of Skyshore."""


@app.command()
def classify(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the weights and the ONNX stages.")] = Path(
        "cloud_node/classify/weights"
    ),
    seed: Annotated[int, typer.Option(help="Seed of clips, weights and their order.")] = 7,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps; about 0.2 CPU seconds each.")] = 3600,
    clips: Annotated[int, typer.Option(min=32, help="Number of training clips.")] = 8192,
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
        f"{out}: {card.heldout_accuracy:.1%} of {card.heldout_clips} held-out clips classified correctly, "
        f"{card.single_frame_accuracy:.1%} by the single-frame control"
    )


JsonOption = Annotated[bool, typer.Option("--json", help="Print the model card as JSON.")]


@app.command()
def preference(
    *,
    out: Annotated[Path, typer.Option(help="Folder for weights, ONNX and card.")] = Path("skyshore/profiling/weights"),
    clips: Annotated[Path, typer.Option(help="Table of the clips' complexity, for virtual time.")] = Path(
        "skyshore/workload/clip_complexity.json"
    ),
    seed: Annotated[int, typer.Option(help="Seed of cameras, demands and weights.")] = 7,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs for the held-out intervals.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the streams.")] = 15,
    drawn: Annotated[int, typer.Option(min=2, help="Street clips for training; half as many for the test.")] = 24,
    cameras: Annotated[int, typer.Option(min=1, help="Training views of the real clip.")] = 8,
    judged: Annotated[int, typer.Option(min=1, help="Test views of the real clip.")] = 6,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train CDIO's preference predictor; needs the clips and detectors (`skyshore models fetch`)."""
    import torch  # noqa: PLC0415

    from training import preference as job  # noqa: PLC0415
    from training.card import write_card  # noqa: PLC0415
    from training.clip_complexity import write_clip_table  # noqa: PLC0415

    torch.set_num_threads(threads)
    settings = job.PreferenceSettings(
        seed=seed,
        seeds=seeds,
        epochs=epochs,
        drawn=drawn,
        drawn_heldout=drawn // 2,
        real=cameras,
        real_heldout=judged,
    )
    model, card = job.train_preference(settings, _report)
    job.save(model, out / "preference.npz")
    job.export(model, out / "preference.onnx")
    write_card(out / "preference.json", card)
    write_clip_table(clips)
    _print_card(card, as_json=as_json)


@app.command()
def agod(
    *,
    out: Annotated[Path, typer.Option(help="Folder for weights, ONNX and card.")] = Path("skyshore/policies/weights"),
    seed: Annotated[int, typer.Option(help="Seed of fleets and weights.")] = 7,
    fleets: Annotated[int, typer.Option(min=1, help="Random fleets for training.")] = 36,
    judged: Annotated[int, typer.Option(min=1, help="Other random fleets for the test.")] = 12,
    seconds: Annotated[float, typer.Option(min=1.0, help="Virtual seconds of each fleet.")] = 30.0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train AGOD's diffusion actor on simulated fleets."""
    import torch  # noqa: PLC0415

    from training import agod as job  # noqa: PLC0415
    from training.card import write_card  # noqa: PLC0415

    torch.set_num_threads(threads)
    settings = job.AgodSettings(seed=seed, fleets=fleets, judged=judged, seconds=seconds)
    actor, steps = job.train_agod(settings, _report)
    job.save(actor, out / "agod.npz")
    job.export(actor, out / "agod.onnx")
    card = job.card(settings, steps, job.judge(settings, out / "agod.npz", _report))
    write_card(out / "agod.json", card)
    _print_card(card, as_json=as_json)


def _report(line: str) -> None:
    from rich.console import Console  # noqa: PLC0415

    Console(stderr=True).print(line, highlight=False)


def _print_card(card: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(card, indent=2, ensure_ascii=False))
    else:
        _report(f"{card['name']}: held out, {card['heldout_figures']}")
