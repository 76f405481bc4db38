"""Who pays for a host's joules: a ledger whose parts add up to the meter's total.

Between two events the ledger takes what the meter rose by. Up to `idle_watts` of it is the idle part, the rest was
spent on inference; both are split evenly among the tasks being worked on. What is drawn while nobody works is kept
apart as `unassigned_joules`. So, up to rounding,

    sum of charges + what open tasks owe + unassigned = meter now - meter at the start.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple


class Charge(NamedTuple):
    """One task's joules."""

    inference_joules: float
    idle_joules: float


@dataclass(slots=True, eq=False)
class Account:
    """One open task. It starts to pay when a slot of its lane is free, not while it waits."""

    lane: str
    pays: bool = False
    inference_mark: float = 0.0
    idle_mark: float = 0.0


@dataclass(slots=True)
class _Lane:
    slots: int
    paying: int = 0
    waiting: deque[Account] = field(default_factory=deque)


def idle_part(spent_joules: float, idle_watts: float, took_s: float) -> float:
    """Of what the meter rose by, what the host would have drawn anyway."""
    return min(spent_joules, idle_watts * max(0.0, took_s))


class EnergyLedger:
    """Meter readings and times come as arguments. A lane is one engine with its slots, first come first served."""

    def __init__(self, idle_watts: float, lanes: dict[str, int], now_s: float, joules: float) -> None:
        self.unassigned_joules = 0.0
        self._idle_watts = idle_watts
        self._lanes = {name: _Lane(slots) for name, slots in lanes.items()}
        self._now_s, self._joules = now_s, joules
        self._paying = 0
        # Joules one task would have paid had it been paying since the start: a task's charge is a difference of these.
        self._inference = self._idle = 0.0

    def observe(self, now_s: float, joules: float) -> None:
        """Book what the meter rose by since the last event."""
        spent = joules - self._joules
        if spent > 0.0:
            self._joules = joules
        else:  # a meter that stands still, or that went back
            spent = 0.0
        idle = idle_part(spent, self._idle_watts, now_s - self._now_s)
        self._now_s = now_s
        if self._paying:
            self._inference += (spent - idle) / self._paying
            self._idle += idle / self._paying
        else:
            self.unassigned_joules += spent

    def open(self, now_s: float, joules: float, lane: str) -> Account:
        """A task arrived at an engine."""
        self.observe(now_s, joules)
        account = Account(lane)
        self._lanes[lane].waiting.append(account)
        self._promote(self._lanes[lane])
        return account

    def close(self, now_s: float, joules: float, account: Account) -> Charge:
        """The task ended, well or not. Its share is settled."""
        self.observe(now_s, joules)
        lane = self._lanes[account.lane]
        if not account.pays:
            lane.waiting.remove(account)
            return Charge(0.0, 0.0)
        account.pays = False
        lane.paying -= 1
        self._paying -= 1
        self._promote(lane)
        return Charge(self._inference - account.inference_mark, self._idle - account.idle_mark)

    def _promote(self, lane: _Lane) -> None:
        while lane.waiting and lane.paying < lane.slots:
            account = lane.waiting.popleft()
            account.pays, account.inference_mark, account.idle_mark = True, self._inference, self._idle
            lane.paying += 1
            self._paying += 1
