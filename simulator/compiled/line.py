"""A short row of tasks in an array whose first entry counts them."""

from __future__ import annotations

from simulator.compiled.jit import compiled
from simulator.compiled.layout import NONE, Numbers


@compiled
def append(line: Numbers, task: int) -> None:
    """Queue up at the end."""
    line[0] += 1
    line[line[0]] = task


@compiled
def index(line: Numbers, task: int) -> int:
    """Place of a task, counted from 1; NONE where it is not."""
    for place in range(1, line[0] + 1):
        if line[place] == task:
            return place
    return NONE


@compiled
def remove_at(line: Numbers, place: int) -> None:
    """Leave; those behind move up."""
    for behind in range(place, line[0]):
        line[behind] = line[behind + 1]
    line[0] -= 1


@compiled
def take_first(line: Numbers) -> int:
    """The first one, which leaves."""
    task = line[1]
    remove_at(line, 1)
    return int(task)
