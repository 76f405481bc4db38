"""NVIDIA's management library: a GPU's own energy counter (Volta and later)."""

from __future__ import annotations


class NvmlMeter:
    """`measured:nvml`: one GPU. Host power is not in it."""

    source = "measured:nvml"

    def __init__(self, device: int = 0) -> None:
        """Raises OSError when pynvml, the driver, the GPU or its counter is not there."""
        try:
            import pynvml  # noqa: PLC0415 - optional: only hosts with a GPU have it
        except ImportError as error:
            raise FileNotFoundError("pynvml is not installed") from error
        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(device)
            self._start_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except pynvml.NVMLError as error:
            raise FileNotFoundError(f"no NVIDIA energy counter: {error}") from error

    def joules(self) -> float:
        """See `EnergyMeter`."""
        now_mj = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        return float(now_mj - self._start_mj) / 1e3
