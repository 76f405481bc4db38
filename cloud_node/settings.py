"""What can be set about a cloud node."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyshore.worker.settings import NodeSettings


class CloudNodeSettings(NodeSettings):
    """As every node, with this tier's defaults."""

    id: str = "cloud-1"
    """Name of the node, unique in the fleet."""
    engine: Literal["onnx", "emulated", "openai"] = "onnx"
    """`onnx` computes here, `openai` asks a server you run, `emulated` only takes time."""
    models: str = "smollm2-135m:fp32,nanodet"
    """Models offered, comma-separated; a language model may carry a precision after a colon."""
    threads: int = Field(default=2, ge=1)
    """Threads one engine computes with; also the cores the modelled power refers to."""
