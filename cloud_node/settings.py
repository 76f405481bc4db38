"""Settings of a cloud node."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyshore.worker.settings import NodeSettings


class CloudNodeSettings(NodeSettings):
    """As every node, with this tier's defaults."""

    id: str = "cloud-1"
    """Name of the node, unique in the fleet."""
    engine: Literal["onnx", "emulated", "openai"] = "onnx"
    """`onnx` computes here, `openai` asks a server you run, `emulated` only waits."""
    models: str = "smollm2-135m:fp32,nanodet,space-time-actions"
    """Models offered, comma-separated; a language model may carry a precision after a colon."""
    ranks: int = Field(default=0, ge=0)
    """Processes the clip classifier is sharded over; 0 takes 2 on four cores or more, else 1."""
    rank_engine: Literal["torch", "onnx"] = "torch"
    """What computes in a rank."""
    rank_stall_s: float = Field(default=10.0, gt=0)
    """Seconds after which a rank that does not answer counts as stuck and the group is rebuilt."""
    threads: int = Field(default=2, ge=1)
    """Threads one engine computes with; also the cores the modelled power refers to."""
