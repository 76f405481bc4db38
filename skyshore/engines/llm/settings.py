"""Settings of an engine; nothing is read from the environment here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from skyshore.domain.task import SERVICE_CLASSES, ServiceClass

KV_BUDGET_BYTES: Final = 512 << 20
"""A node's default; enough for five requests of 2,048 tokens of the catalogue's model, or for sixty ordinary ones."""


@dataclass(frozen=True, slots=True)
class LlmEngineSettings:
    """One engine, one model, one thread that runs it."""

    model_dir: Path
    """Folder with `model-<precision>.onnx`, `tokenizer.json` and `config.json`."""
    precision: str = "int4"
    model: str = ""
    """Name to report; empty means the folder's name."""
    threads: int = 1
    """Threads of ONNX Runtime, the engine's own included."""
    spin: bool = False
    """Whether those threads spin while they wait: a quarter faster on a machine that runs nothing else."""
    slots: int = 16
    """Requests decoded together."""
    queue_limit: int = 256
    """Requests that may wait for a slot."""
    context_tokens: int = 2048
    """Longest prompt plus answer; the model's own context bounds it too."""
    kv_budget_bytes: int = KV_BUDGET_BYTES
    """Memory for keys and values, prefix cache included. Padding rows may touch one more page per slot and head."""
    prefix_slots: int = 8
    """Finished prompts kept for reuse; 0 turns the prefix cache off."""
    prefill_chunk_tokens: int = 256
    """Most prompt tokens computed in one step."""
    stall_ratio: float = 0.7
    """How much a prompt may delay running answers, per step, as a multiple of their decode time."""
    service_classes: Mapping[str, ServiceClass] = field(default_factory=lambda: dict(SERVICE_CLASSES))
    """Where a task's priority comes from."""
