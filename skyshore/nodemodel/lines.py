"""Tasks in line, first come, first served: at an engine, or for a slot in the energy ledger.

A line is three integers: how many tasks it has, the first and the last. `after[number]` is the task behind another;
one array serves all engines, because a task is in one line at a time.
"""

from __future__ import annotations

from skyshore.nodemodel.records import COUNT, FIRST, LAST
from skyshore.rules.kernel import kernel
from skyshore.rules.records import NONE, Integers


@kernel
def append(line: Integers, after: Integers, number: int) -> None:
    """Add a task at the end."""
    if line[COUNT]:
        after[line[LAST]] = number
    else:
        line[FIRST] = number
    line[LAST] = number
    line[COUNT] += 1
    after[number] = NONE


@kernel
def take_first(line: Integers, after: Integers) -> int:
    """Remove the first task and return its number."""
    number: int = line[FIRST]
    line[FIRST] = after[number]
    line[COUNT] -= 1
    return number


@kernel
def unlink(line: Integers, after: Integers, before: int, number: int) -> None:
    """Remove the task behind `before`, which is NONE for the first task."""
    if before == NONE:
        line[FIRST] = after[number]
    else:
        after[before] = after[number]
    if line[LAST] == number:
        line[LAST] = before
    line[COUNT] -= 1


@kernel
def remove(line: Integers, after: Integers, number: int) -> bool:
    """Remove a task from any place. False if it is not in this line."""
    before, place = NONE, line[FIRST]
    for _ in range(line[COUNT]):
        if place == number:
            unlink(line, after, before, number)
            return True
        before, place = place, after[place]
    return False


@kernel
def is_in(line: Integers, after: Integers, number: int) -> bool:
    """Whether a task is in this line."""
    place = line[FIRST]
    for _ in range(line[COUNT]):
        if place == number:
            return True
        place = after[place]
    return False


def members(line: Integers, after: Integers) -> list[int]:
    """Numbers of all tasks in the line, in order."""
    found, place = [], line[FIRST]
    for _ in range(line[COUNT]):
        found.append(place)
        place = after[place]
    return found
