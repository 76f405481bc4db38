"""The time when each engine that serves one task at a time will be free.

Such an engine serves first in, first out, so its end is a sum: each task begins when the one before it has ended and
its own bytes are there. When a task leaves, answered or not, the times of the tasks behind it are computed again.
Engines that serve several tasks at once are not here: `skyshore.rules.arm_model` learns how they slow each other.
"""

from __future__ import annotations

from skyshore.rules.kernel import kernel
from skyshore.rules.records import Records, dtype_of

ENGINE = dtype_of("free_at_s", "queued first last")
"""An engine and its queue: a list of `queued` attempts in flight through their fields `engine_next`."""


@kernel
def reset_engine(engines: Records, flights: Records, place: int) -> None:
    """Use the number for a new engine, with an empty queue."""
    engine = engines[place]
    index = engine.first
    for _ in range(engine.queued):
        flights[index].queued = 0
        index = flights[index].engine_next
    engine.free_at_s, engine.queued = 0.0, 0


@kernel
def join_engine(engines: Records, flights: Records, index: int) -> None:
    """An attempt was placed last in the queue of its engine."""
    flight = flights[index]
    engine = engines[flight.engine]
    flight.queued = 1
    if engine.queued == 0:
        engine.first = index
    else:
        flight.engine_previous = engine.last
        flights[engine.last].engine_next = index
    engine.last, engine.queued = index, engine.queued + 1
    engine.free_at_s = max(engine.free_at_s, flight.ready_at_s) + flight.work_s


@kernel
def leave_engine(engines: Records, flights: Records, index: int, at_s: float, answered: bool) -> None:
    """An attempt left the queue of its engine at `at_s`; those behind it move up.

    No attempt before an answered one waits any more, so those leave too: users gave them up without a report.
    """
    flight = flights[index]
    if flight.queued == 0:
        return
    engine = engines[flight.engine]
    while answered and engine.first != index:
        unlink_from_engine(engines, flights, engine.first)
    unlink_from_engine(engines, flights, index)
    free_at_s, behind = at_s, engine.first
    for _ in range(engine.queued):
        free_at_s = max(free_at_s, flights[behind].ready_at_s) + flights[behind].work_s
        behind = flights[behind].engine_next
    engine.free_at_s = free_at_s


@kernel
def unlink_from_engine(engines: Records, flights: Records, index: int) -> None:
    """Remove an attempt from its engine's list."""
    flight = flights[index]
    engine = engines[flight.engine]
    if engine.first == index:
        engine.first = flight.engine_next
    else:
        flights[flight.engine_previous].engine_next = flight.engine_next
    if engine.last == index:
        engine.last = flight.engine_previous
    else:
        flights[flight.engine_next].engine_previous = flight.engine_previous
    engine.queued, flight.queued = engine.queued - 1, 0
