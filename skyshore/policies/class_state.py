"""What `skyshore` learns of one service class, over all arms: its risk, the price of its misses, its quality margin."""

from __future__ import annotations

from typing import Any

import numpy as np

from skyshore.policies.risk import MissRisk, Multiplier


class ClassState:
    """What is learned of one service class, over all arms."""

    def __init__(self, miss_share: float, cheapest: float, dearest: float) -> None:
        self.risk = MissRisk()
        self.multiplier = Multiplier(miss_share, cheapest, dearest)
        self._shortfall = 0.0
        """Virtual queue of the quality floor."""

    @property
    def quality_margin(self) -> float:
        """Quality to ask for beyond the floor."""
        return min(0.01 * self._shortfall, 0.1)

    def note_quality(self, shortfall: float, floor: float) -> None:
        """Take in by how much an answer fell short of its floor, if it had one."""
        if floor > 0:
            self._shortfall = max(self._shortfall + shortfall, 0.0)

    def plain(self) -> dict[str, float | list[float]]:
        """As JSON takes it."""
        return {
            "alive": self.risk.alive.tolist(),
            "ended": self.risk.ended.tolist(),
            "multiplier": self.multiplier.value,
            "missed_share": self.multiplier.missed_share,
            "shortfall": self._shortfall,
        }

    def take(self, plain: dict[str, Any]) -> None:
        """From what `plain` gave."""
        self.risk.restore(np.array(plain["alive"]), np.array(plain["ended"]))
        self.multiplier.value = float(plain["multiplier"])
        self.multiplier.missed_share = float(plain["missed_share"])
        self._shortfall = float(plain["shortfall"])
