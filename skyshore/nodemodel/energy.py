"""Assigns a host's joules to tasks: a ledger whose parts add up to the meter's total.

Between two events the ledger takes what the meter rose by. Up to `idle_watts` of it is the idle part, the rest was
spent on inference. Both are split evenly among the tasks in service. Joules without a task in service are counted as
`unassigned_joules`. So, up to rounding,

    sum of charges + what open tasks owe + unassigned = meter now - meter at the start.

The kernels work on a LEDGER, its lanes (ENGINE or LANE: one engine with its slots, first come first served) and the
accounts of tasks. A task starts to pay when a slot of its lane is free, not while it waits.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

from skyshore.nodemodel.engine import busy_s
from skyshore.nodemodel.lines import append, remove, take_first
from skyshore.nodemodel.records import COUNT, LANE, LEDGER
from skyshore.rules.kernel import kernel
from skyshore.rules.records import Integers, Record, Records, rows


@kernel
def idle_part(spent_joules: float, idle_watts: float, took_s: float) -> float:
    """Joules, of those that the meter rose by, that the idle host would have drawn too."""
    return min(spent_joules, idle_watts * max(0.0, took_s))


@kernel
def modelled_joules(  # noqa: PLR0917 (numba takes arguments by position)
    engines: Records, first: int, count: int, tasks: Records, after: Integers, now_s: float
) -> float:
    """Joules above idle of the node that has `count` engines from `first` on: what its meter would show."""
    joules = 0.0
    for number in range(first, first + count):
        joules += engines[number].busy_watts * busy_s(engines[number], tasks, after, now_s)
    return joules


@kernel
def open_ledger(ledger: Record, now_s: float, joules: float) -> None:
    """Start without tasks; `joules` is the meter's reading."""
    ledger.seen_s, ledger.seen_joules, ledger.paying = now_s, joules, 0
    ledger.inference_share = ledger.idle_share = ledger.unassigned_joules = 0.0


@kernel
def book(ledger: Record, now_s: float, joules: float) -> None:
    """Assign the joules that the meter rose by since the last event."""
    spent = joules - ledger.seen_joules
    if spent > 0.0:
        ledger.seen_joules = joules
    else:  # a meter that stands still, or that went back
        spent = 0.0
    idle = idle_part(spent, ledger.idle_watts, now_s - ledger.seen_s)
    ledger.seen_s = now_s
    if ledger.paying:
        ledger.inference_share += (spent - idle) / ledger.paying
        ledger.idle_share += idle / ledger.paying
    else:
        ledger.unassigned_joules += spent


@kernel
def open_account(  # noqa: PLR0917 (numba takes arguments by position)
    ledger: Record, lane: Record, accounts: Records, after: Integers, number: int, now_s: float, joules: float
) -> None:
    """A task arrived at an engine. `after` is not the one of the engines' lines."""
    book(ledger, now_s, joules)
    accounts[number].pays = 0
    append(lane.unpaid, after, number)
    _promote(ledger, lane, accounts, after)


@kernel
def close_account(  # noqa: PLR0917 (numba takes arguments by position)
    ledger: Record, lane: Record, accounts: Records, after: Integers, number: int, now_s: float, joules: float
) -> None:
    """The task ended, with any result. Its share is written into its account."""
    book(ledger, now_s, joules)
    account = accounts[number]
    if not account.pays:
        remove(lane.unpaid, after, number)
        account.inference_joules = account.idle_joules = 0.0
        return
    account.pays = 0
    lane.paying -= 1
    ledger.paying -= 1
    _promote(ledger, lane, accounts, after)
    account.inference_joules = ledger.inference_share - account.inference_mark
    account.idle_joules = ledger.idle_share - account.idle_mark


@kernel
def _promote(ledger: Record, lane: Record, accounts: Records, after: Integers) -> None:
    while lane.unpaid[COUNT] and lane.paying < lane.slots:
        account = accounts[take_first(lane.unpaid, after)]
        account.pays, account.inference_mark, account.idle_mark = 1, ledger.inference_share, ledger.idle_share
        lane.paying += 1
        ledger.paying += 1


class Charge(NamedTuple):
    """One task's joules."""

    inference_joules: float
    idle_joules: float


@dataclass(slots=True, eq=False)
class Account:
    """One open task."""

    lane: str
    number: int
    pays: int = 0
    inference_mark: float = 0.0
    idle_mark: float = 0.0
    inference_joules: float = 0.0
    idle_joules: float = 0.0


class EnergyLedger:
    """Meter readings and times come as arguments; `lanes` are slots by the name of the engine."""

    def __init__(self, idle_watts: float, lanes: dict[str, int], now_s: float, joules: float) -> None:
        self._ledger = rows(LEDGER, 1, arrays=False)[0]
        self._ledger.idle_watts = idle_watts
        open_ledger(self._ledger, now_s, joules)
        self._lanes = dict(zip(lanes, rows(LANE, len(lanes), arrays=False), strict=True))
        for name, slots in lanes.items():
            self._lanes[name].slots = slots
        self._numbers = itertools.count()
        self._accounts: dict[int, Account] = {}
        self._after: dict[int, int] = {}

    @property
    def unassigned_joules(self) -> float:
        """Joules without a task in service."""
        return float(self._ledger.unassigned_joules)

    def observe(self, now_s: float, joules: float) -> None:
        """See `book`."""
        book(self._ledger, now_s, joules)

    def open(self, now_s: float, joules: float, lane: str) -> Account:
        """A task arrived at an engine."""
        number = next(self._numbers)
        account = self._accounts[number] = Account(lane, number)
        open_account(self._ledger, self._lanes[lane], self._accounts, self._after, number, now_s, joules)
        return account

    def close(self, now_s: float, joules: float, account: Account) -> Charge:
        """The task ended, with any result. Returns its share."""
        lane, number = self._lanes[account.lane], account.number
        close_account(self._ledger, lane, self._accounts, self._after, number, now_s, joules)
        del self._accounts[number], self._after[number]
        return Charge(account.inference_joules, account.idle_joules)
