"""What can be set about an edge node."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyshore.worker.settings import NodeSettings


class EdgeNodeSettings(NodeSettings):
    """As every node, with this tier's defaults."""

    id: str = "edge-1"
    """Name of the node, unique in the fleet."""
    engine: Literal["onnx", "emulated", "openai"] = "onnx"
    """`onnx` computes here, `openai` asks a server you run, `emulated` only takes time."""
    models: str = "smollm2-135m:int4,ssd-mobilenet"
    """Models offered, comma-separated; a language model may carry a precision after a colon."""
    threads: int = Field(default=1, ge=1)
    """Threads one engine computes with; also the cores the modelled power refers to."""
