"""Joules computed, not measured: idle power plus what the node reports above it."""

from __future__ import annotations

import time
from collections.abc import Callable


class ModelledMeter:
    """`modelled:<model>`: idle watts all the time, plus the joules above idle that `active_joules` reports."""

    def __init__(
        self, model: str, idle_watts: float, active_joules: Callable[[], float], *, time_scale: float = 1.0
    ) -> None:
        """`time_scale` model seconds pass in one real second; idle joules count model seconds."""
        self.source = f"modelled:{model}"
        self._idle_watts, self._active_joules = idle_watts * time_scale, active_joules
        self._start_s = time.monotonic()

    def joules(self) -> float:
        """See `EnergyMeter`."""
        return self._idle_watts * (time.monotonic() - self._start_s) + self._active_joules()


def linear_meter(
    idle_watts: float, busy_watts: float, threads: int, ranks_cpu_s: Callable[[], float] = lambda: 0.0
) -> ModelledMeter:
    """`modelled:linear`: idle watts plus `busy_watts` times the share of `threads` cores this node keeps busy.

    It counts this process, and the CPU seconds `ranks_cpu_s` of processes that work for it, so several nodes on one
    machine each draw their own power.
    """
    watts_per_core = busy_watts / threads

    def cpu_s() -> float:
        return time.process_time() + ranks_cpu_s()

    start_s = cpu_s()
    return ModelledMeter("linear", idle_watts, lambda: watts_per_core * (cpu_s() - start_s))
