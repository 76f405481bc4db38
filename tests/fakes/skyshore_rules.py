"""Single rules of the policy `skyshore`, each with a state of its own, for tests."""

from collections.abc import Iterable

import numpy as np

from skyshore.rules import in_flight, uplink
from skyshore.rules.miss_risk import EDGES, INTERVALS, blank_curve, miss_chance, observe_score
from skyshore.rules.records import NONE, rows


class RiskCurve:
    """The survival curve of one service class."""

    def __init__(self) -> None:
        self.alive, self.ended, self.chances = [0.0] * INTERVALS, [0.0] * INTERVALS, [0.0] * EDGES
        blank_curve(self.alive, self.ended, self.chances)

    def observe(self, score: float, *, cut_off: bool) -> None:
        observe_score(self.alive, self.ended, self.chances, float(score), cut_off)

    def chance(self, spares: Iterable[float]) -> np.ndarray:
        return np.array([miss_chance(self.chances, float(spare)) for spare in spares])


class FlightTable:
    """Attempts in flight of one kind of task; each task is numbered by the caller."""

    def __init__(self) -> None:
        self.state = in_flight.in_flight_state()
        self.state.flight_of.extend([0] * 300)  # more task numbers than rows for their attempts

    def add(self, node: int, task: int, now_s: float, *, engine: int = NONE, **fields: float) -> None:
        index = in_flight.take_flight(self.state, now_s)
        flight = self.state.flights[index]
        blank = {"sent_s": 0.0, "work_s": 0.0, "delay_s": 0.0, "sigma_s": 1.0, "ends_at_s": now_s + 1.0}
        for name, value in (blank | fields).items():
            setattr(flight, name, value)
        flight.task = flight.serial = task
        flight.kind, flight.placed_at_s = 0, now_s
        flight.node, flight.engine = node * 3, engine * 3 if engine != NONE else NONE
        in_flight.add_flight(self.state, index, now_s, 0.0, 0.0)

    def drop(self, task: int, now_s: float, *, answered: bool = False) -> float | None:
        """Mean number of others over its stay; None if the task is not known."""
        index = in_flight.find_flight(self.state, 0, task, task)
        return None if index == NONE else in_flight.drop_flight(self.state, index, now_s, answered)

    def node(self, number: int):
        return self.state.nodes[number * 3]

    def engine_free_at_s(self, number: int) -> float:
        return self.state.engines[number * 3].free_at_s


class Uplink:
    """The link to one node."""

    def __init__(self, rows_in_pool: int = 32) -> None:
        self.node = rows(in_flight.NODE_LOAD, 1, arrays=False)[0]
        in_flight.blank_nodes([self.node], 0)
        self.sendings, self.pools = rows(uplink.SENDING, rows_in_pool, arrays=False), rows(uplink.POOL, 1, arrays=False)
        uplink.add_free(self.sendings, self.pools, 0, 0)

    def send(self, now_s: float, size_bytes: float, stated: float) -> float:
        return uplink.send_bytes(self.node, self.sendings, self.pools[0], now_s, size_bytes, stated)

    def confirm(self, upto_bytes: float, at_s: float, *, computed_s: float, stated: float) -> None:
        uplink.confirm_bytes(self.node, self.sendings, self.pools[0], 0.5, upto_bytes, at_s, computed_s, stated)

    def note_late(self, upto_bytes: float, at_s: float, *, stated: float) -> None:
        uplink.note_late_bytes(self.node, self.sendings, 0.5, upto_bytes, at_s, stated)
