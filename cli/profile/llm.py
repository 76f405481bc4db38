"""`skyshore profile llm`: speed, joules and quality of each precision of a language model on this machine."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.options import AsJson
from cli.profile.inputs import existing_profile, positive_numbers
from cli.render import say, show_table
from skyshore.adapters.tokenizer import Tokenizer
from skyshore.catalogue.llama.build import Precision
from skyshore.catalogue.store import add_precision, ready
from skyshore.domain.errors import NotFound
from skyshore.engines.llm.decoder import Decoder
from skyshore.engines.llm.settings import KV_BUDGET_BYTES
from skyshore.nodemodel.document import profile_to_document
from skyshore.nodemodel.quality import llm_quality
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile
from skyshore.report.host import host_facts
from skyshore.report.tables import Table
from skyshore.runtime import logs
from skyshore.worker.energy import choose_meter
from skyshore.worker.llm_profile import (
    TEXT_FILE,
    TEXT_SOURCE,
    WINDOW_TOKENS,
    PrecisionProfile,
    measure,
    text_quality,
    to_speed,
    top_tokens_and_loss,
)
from skyshore.worker.onnx_engines import CONTEXT_TOKENS
from skyshore.worker.settings import NodeSettings

REFERENCE = "fp32"


def llm(
    *,
    model: Annotated[str, typer.Option(help="A fetched language model.")] = "smollm2-135m",
    precisions: Annotated[
        str, typer.Option(help="Precisions, separated by commas; missing ones are built (default: those in the cache).")
    ] = "",
    batches: Annotated[str, typer.Option(help="Numbers of rows that are decoded together.")] = "1,4,8,16",
    contexts: Annotated[
        str, typer.Option(help="Lengths of the prompt and of the past of each row, in tokens.")
    ] = "128,1024",
    threads: Annotated[int, typer.Option(min=1, help="Engine threads, as on the node.")] = 1,
    out: Annotated[Path, typer.Option(help="Node profile to write; its other models are kept.")] = Path(
        "node-profile.json"
    ),
    as_json: AsJson = False,
) -> None:
    """Measure each precision: prefill and decode by batch and context, joules per token, perplexity, agreement."""
    logs.configure("profile", "warning", as_json=False)
    console = Console(stderr=True)
    rows, lengths = positive_numbers("batches", batches), positive_numbers("contexts", contexts)
    names = _precisions(precisions, ready(model))
    settings = NodeSettings(engine="onnx", id="profile", threads=threads)
    found = _measure(model, names, rows, lengths, settings=settings, console=console)
    speeds = tuple(_speed(each, settings, threads) for each in found)
    _write(out, settings, speeds)
    if as_json:
        print(json.dumps(report(found, speeds, threads, out), indent=1))
        return
    show_table(Console(), precision_table(found))
    say(console, f"written to {out}; a node reads it from SKYSHORE_NODE_PROFILE")


def _measure(
    model: str,
    names: tuple[str, ...],
    rows: tuple[int, ...],
    lengths: tuple[int, ...],
    *,
    settings: NodeSettings,
    console: Console,
) -> list[PrecisionProfile]:
    """Build missing precisions, then measure each of `names` at all `rows` and `lengths`."""
    folder, threads = ready(model), settings.threads
    for name in (*names, REFERENCE):
        if not (folder / f"model-{name}.onnx").is_file():
            say(console, f"building {model}:{name}")
            add_precision(model, name)
    tokens = Tokenizer.open(folder).encode(TEXT_FILE.read_text(encoding="utf-8"))
    reference = Decoder(folder / f"model-{REFERENCE}.onnx", 1, WINDOW_TOKENS, threads)
    tops, _, _ = top_tokens_and_loss(reference, tokens)
    del reference
    meter = choose_meter(settings)
    found: list[PrecisionProfile] = []
    for name in names:
        with console.status(f"{model}:{name}"):
            path = folder / f"model-{name}.onnx"
            decoder = Decoder(path, max(rows) + 1, max(*lengths, WINDOW_TOKENS) + 64, threads)
            cells, watts = measure(decoder, rows, lengths, meter=meter, idle_watts=settings.idle_watts)
            quality = text_quality(decoder, tokens, tops)
            weights = path.with_suffix(".onnx.data").stat().st_size
            kv_bytes = decoder.kv.bytes_per_token
            found.append(PrecisionProfile(model, name, weights, cells, quality, meter.source, watts, kv_bytes))
    return found


def report(found: list[PrecisionProfile], speeds: tuple[LlmSpeed, ...], threads: int, out: Path) -> dict[str, Any]:
    """The output of `--json`, from which the tables of docs/llm.md are made."""
    return {
        "host": host_facts(),
        "threads": threads,
        "text": {"source": TEXT_SOURCE, "tokens": found[0].quality.tokens, "window": WINDOW_TOKENS},
        "profile": str(out),
        "precisions": [
            asdict(each)
            | {"cells": [asdict(cell) | {"tokens_per_s": cell.tokens_per_s} for cell in each.cells]}
            | {"speed": asdict(speed), "predicted": _predicted(speed, each)}
            for each, speed in zip(found, speeds, strict=True)
        ],
    }


def _predicted(speed: LlmSpeed, found: PrecisionProfile) -> list[dict[str, float]]:
    """Time to first token and per output token: as the scheduler predicts them, and as measured. In seconds."""
    alone = {cell.context: cell.run_s for cell in found.cells if cell.kind == "prefill"}
    return [
        {
            "prompt_tokens": cell.context,
            "rows": cell.batch,
            "ttft_s": speed.ttft_s(cell.context, cell.batch - 1),
            "ttft_alone_measured_s": alone[cell.context],
            "tpot_s": speed.tpot_s(cell.batch),
            "tpot_measured_s": cell.run_s,
        }
        for cell in found.cells
        if cell.kind == "decode"
    ]


def precision_table(found: list[PrecisionProfile]) -> Table:
    """One row per precision: size, quality, and tokens per second of each measurement."""
    cells = found[0].cells
    titles = tuple(
        f"prefill {cell.context}" if cell.kind == "prefill" else f"b{cell.batch}@{cell.context}" for cell in cells
    )
    rows = tuple(
        (
            each.precision,
            f"{each.weight_bytes / 1e6:.0f}",
            f"{each.quality.perplexity:.2f}",
            f"{each.quality.agreement:.3f}",
            *(f"{cell.tokens_per_s:.0f}" for cell in each.cells),
            f"{_joules(each, 'prefill'):.3f}",
            f"{_joules(each, 'decode'):.3f}",
        )
        for each in found
    )
    note = (
        f"tokens/s; joules per token above idle, {found[0].energy_source}, over all cells; perplexity on "
        f"{found[0].quality.tokens} tokens: {TEXT_SOURCE}; agreement: share of positions with fp32's most likely token."
    )
    columns = ("precision", "MB", "perplexity", "agreement", *titles, "J prefill", "J decode")
    return Table(found[0].model, columns, rows, note)


def _joules(found: PrecisionProfile, kind: str) -> float:
    spent = [cell.joules_per_token for cell in found.cells if cell.kind == kind]
    return sum(spent) / len(spent)


def _speed(found: PrecisionProfile, settings: NodeSettings, threads: int) -> LlmSpeed:
    source = f"measured:`skyshore profile llm`, {threads} threads; energy {found.energy_source}"
    base = llm_quality(found.model) or 1.0
    kv_tokens = KV_BUDGET_BYTES // found.kv_bytes_per_token
    return to_speed(
        found, base, slots=settings.slots, kv_tokens=kv_tokens, context_tokens=CONTEXT_TOKENS, source=source
    )


def _precisions(given: str, folder: Path) -> tuple[str, ...]:
    cached = [each for each in Precision if (folder / f"model-{each}.onnx").is_file()]
    names = tuple(name.strip() for name in given.split(",") if name.strip()) or tuple(map(str, cached))
    for name in names:
        if name not in list(Precision):
            raise NotFound(f"no precision '{name}'; there are {', '.join(Precision)}", param="precisions")
    return names


def _write(out: Path, settings: NodeSettings, speeds: tuple[LlmSpeed, ...]) -> None:
    name = f"{platform.node()}, {settings.threads} threads"
    profile = existing_profile(out) or NodeProfile(name, "measured:`skyshore profile`", settings.idle_watts)
    kept = tuple(each for each in profile.llm if each.model not in {speed.model for speed in speeds})
    out.parent.mkdir(parents=True, exist_ok=True)
    document = profile_to_document(replace(profile, llm=(*kept, *speeds)))
    out.write_text(json.dumps(document, indent=1), encoding="utf-8")
