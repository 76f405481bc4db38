"""Chooses the energy meter of a node."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from skyshore.adapters.energy_modelled import linear_meter
from skyshore.adapters.energy_nvml import NvmlMeter
from skyshore.adapters.energy_rapl import RaplMeter
from skyshore.ports import EnergyMeter
from skyshore.worker.settings import NodeSettings

log = structlog.get_logger()


def choose_meter(settings: NodeSettings, ranks_cpu_s: Callable[[], float] = lambda: 0.0) -> EnergyMeter:
    """The meter of the settings. `auto` means the first of NVML, RAPL and the linear model that works here.

    The linear model counts the CPU seconds of this process and those of `ranks_cpu_s`.

    Raises:
        OSError: the meter that is set by name does not work here.
    """
    if settings.energy == "nvml":
        return NvmlMeter()
    if settings.energy == "rapl":
        return RaplMeter()
    if settings.energy == "auto":
        for meter in (NvmlMeter, RaplMeter):
            try:
                return meter()
            except OSError as error:
                log.debug("no meter", meter=meter.source, why=str(error))
    return linear_meter(settings.idle_watts, settings.busy_watts, settings.threads, ranks_cpu_s)
