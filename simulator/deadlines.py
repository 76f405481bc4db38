"""Calls that are mostly not needed in the end: what is planned to happen at a task's deadline."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from simulator.timeline import Timeline

MOST_LANES = 64
"""Service classes have one deadline each; where every task has its own, they go to the timeline as they come."""


class Ending(Protocol):
    """Something that may be over before its deadline."""

    @property
    def over(self) -> bool:
        """Nothing needs to happen at the deadline any more."""
        ...


Task = TypeVar("Task", bound=Ending)


class Deadlines(Generic[Task]):
    """Keeps one lane per time allowed, in which deadlines come in order, so the timeline sees the first of each only.

    Calls are made at the same times, and in the same order, as if every one had been planned.
    """

    def __init__(self, timeline: Timeline, call: Callable[[Task], None]) -> None:
        self._timeline, self._call = timeline, call
        self._lanes: dict[float, deque[tuple[float, int, Task]]] = {}

    def add(self, allowed_s: float, task: Task) -> None:
        """Call for `task` that long from now, unless it is over by then."""
        lane = self._lanes.get(allowed_s)
        if lane is None:
            if len(self._lanes) >= MOST_LANES:
                self._timeline.at(self._timeline.now_s + allowed_s, self._expire, task)
                return
            lane = self._lanes[allowed_s] = deque()
        lane.append((self._timeline.now_s + allowed_s, self._timeline.turn(), task))
        if len(lane) == 1:
            self._await_first(lane)

    def _await_first(self, lane: deque[tuple[float, int, Task]]) -> None:
        at_s, turn, _ = lane[0]
        self._timeline.at_turn(at_s, turn, self._first_due, lane)

    def _first_due(self, lane: deque[tuple[float, int, Task]]) -> None:
        _, _, task = lane.popleft()
        while lane and lane[0][2].over:
            lane.popleft()
        if lane:
            self._await_first(lane)
        self._expire(task)

    def _expire(self, task: Task) -> None:
        if not task.over:
            self._call(task)
