"""Running average power limit: the processor's own energy counters, through Linux powercap."""

from __future__ import annotations

import re
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PACKAGE = re.compile(r"intel-rapl:\d+")
"""Package domains. Their children (core, uncore) are contained in them; DRAM is not, and is added."""


class _Counter:
    """One counter in microjoules; it wraps at its range."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = int(self._file.read_text())
        self._sum = 0

    def joules(self) -> float:
        now = int(self._file.read_text())
        self._sum += (now - self._last) % (self._range + 1)
        self._last = now
        return self._sum / 1e6


class RaplMeter:
    """`measured:rapl`: all packages and their memory. Covers the whole host, other programs included."""

    source = "measured:rapl"

    def __init__(self, root: Path = POWERCAP) -> None:
        """Raises OSError when there is no counter or no permission to read it (most hosts require root)."""
        packages = [folder for folder in sorted(root.glob("intel-rapl:*")) if PACKAGE.fullmatch(folder.name)]
        memory = [
            child
            for package in packages
            for child in sorted(root.glob(f"{package.name}:*"))
            if (child / "name").read_text().strip() == "dram"
        ]
        if not packages:
            raise FileNotFoundError(f"no RAPL package under {root}")
        self._counters = [_Counter(folder) for folder in (*packages, *memory)]

    def joules(self) -> float:
        """See `EnergyMeter`."""
        return sum(counter.joules() for counter in self._counters)
