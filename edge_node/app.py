"""The engines that an edge node can start."""

from __future__ import annotations

from skyshore.worker.engines import StartEngines, start_emulated, start_openai
from skyshore.worker.onnx_engines import start_onnx

STARTERS: dict[str, StartEngines] = {"onnx": start_onnx, "emulated": start_emulated, "openai": start_openai}
"""By the value of the setting `engine`."""
