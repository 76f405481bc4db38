"""Virtual time: a heap of calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Timeline:
    """Runs calls in order of time; of equal times, in the order they were planned. That makes runs repeatable."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events = 0
        """Calls made so far, as of the end of the last `run`."""
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._planned = 0
        self._stopped = False

    def at(self, time_s: float, call: Callable[[Any], None], argument: Any) -> None:
        """Plan `call(argument)`; a time that has passed means now."""
        self._planned += 1
        heappush(self._heap, (time_s if time_s > self.now_s else self.now_s, self._planned, call, argument))

    def turn(self) -> int:
        """A place in the order of planning, for a call that `at_turn` will plan later if it is needed at all."""
        self._planned += 1
        return self._planned

    def at_turn(self, time_s: float, turn: int, call: Callable[[Any], None], argument: Any) -> None:
        """`at`, as if it had been called when `turn` was taken; the time must not have passed."""
        heappush(self._heap, (time_s, turn, call, argument))

    def stop(self) -> None:
        """Let `run` return after the call under way; what is planned stays planned."""
        self._stopped = True

    def run(self, until_s: float = math.inf) -> None:
        """Make every call planned up to `until_s`, those planned meanwhile included."""
        heap, made = self._heap, self.events
        self._stopped = False
        try:
            while heap and heap[0][0] <= until_s and not self._stopped:
                self.now_s, _, call, argument = heappop(heap)
                made += 1
                call(argument)
        finally:
            self.events = made
        if math.isfinite(until_s) and not self._stopped:
            self.now_s = max(self.now_s, until_s)
