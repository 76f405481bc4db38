"""The settings of an edge node."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skyshore.worker.settings import NodeSettings


class EdgeNodeSettings(NodeSettings):
    """The settings of every node, with the defaults of an edge node."""

    id: str = "edge-1"
    """Name of the node, unique in the fleet."""
    engine: Literal["onnx", "emulated", "openai"] = "onnx"
    """`onnx` computes here, `openai` calls a server of the user, `emulated` takes the modelled time."""
    models: str = "smollm2-135m:int4,ssd-mobilenet"
    """Models to serve, separated by commas. A language model may have a precision after a colon."""
    threads: int = Field(default=1, ge=1)
    """Threads of one engine; also the number of cores in the power model."""
