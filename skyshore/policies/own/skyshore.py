"""`skyshore`: the fewest added joules, with deadlines priced by the chance of missing them. Our own policy.

For each arm the policy predicts the latency L, its spread σ and the joules. It uses learned corrections of the
scheduler's estimates (`rules.arm_model`), the bytes still on their way to the node (`rules.uplink`) and the time when
the engine is free (`rules.engine_queue`). From L, σ and the past of the service class it predicts the chance p that the
task misses its deadline (`rules.miss_risk`). From the tasks already on the node it predicts how many deadlines x of
other tasks the new task would break there (`rules.in_flight`). It takes the arm with the least cost (`rules.forecast`):

    ΔJ·(1 − β / √(4 + n)) · (1 + 10·failures)  +  λ_k·J̄·(p + x)

- ΔJ: joules that the task adds to the node: its own work, and the shared work for as long as it would be alone there.
  So tasks gather on nodes that work anyway, until they would break the deadlines of the tasks before them.
- β: optimism about arms with few outcomes n. `failures`: the recent share of failures of the arm.
- λ_k: Lagrange multiplier of "at most a share `miss_share` of class k misses", moved by dual ascent within bounds.
- J̄: running geometric mean of joules. A few expensive answers hardly move it, so they do not raise the price of a miss.

An arm whose learned quality is below floor + margin_k is chosen only if no other arm is left. A virtual queue of past
shortfalls sets the margin.

The policy refuses a task when its expected gain is too small:

    1 − p − x  <  min(`floor` + m_k, `ceiling`)       m_k: running share of the placed tasks of class k that missed

A task that is cut off at its deadline costs joules and takes the place of one that would have been in time. When there
is room, few tasks miss and nearly all are tried. Under overload the policy refuses more. It tries one in twenty of the
tasks that it would refuse, because a policy that refuses everything never learns that things have improved.

Related work: constrained contextual bandits (digest 4.2, rows 1 to 6). `docs/policies.md` says what else was tried.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.task import TaskKind
from skyshore.policies.kernel_policy import KIND_NUMBERS, KernelPolicy
from skyshore.policies.learning.snapshot import join_parts, pack, split_parts, unpack
from skyshore.rules.arm_model import ARM_FIGURES, ARM_MODEL, SUMS, blank_arm_model
from skyshore.rules.engine_queue import ENGINE, reset_engine
from skyshore.rules.in_flight import (
    FIRST_ROOM,
    FLIGHT_POOL,
    IN_FLIGHT,
    NODE_LOAD,
    SENDING_POOL,
    blank_nodes,
    in_flight_state,
    place_of,
)
from skyshore.rules.least_cost import SkyshoreSettings, SkyshoreState
from skyshore.rules.miss_risk import CLASS, EDGES, INTERVALS, STEP, blank_curve, survive
from skyshore.rules.records import KINDS, MOST_GROUPS, Record, Records, column, floats, get, rows, with_room
from skyshore.rules.uplink import SENDING, add_free

FORMAT = "skyshore/2"
OTHERS = "(others)"
"""In a snapshot: the service classes beyond the bound, which share one state."""
FIGURES = tuple(ARM_FIGURES.split())
SCALARS = ("multiplier", "missed_share", "shortfall")
"""Of a class."""
FLIGHTS_PER_TASK, SENDINGS_PER_TASK = 2, 4
"""Rows of the pools for each task under way; see `take_flight` and `send_bytes`."""


class _Class(NamedTuple):
    """A service class in a snapshot."""

    alive: list[float]
    ended: list[float]
    scalars: list[float]


class Skyshore(KernelPolicy):
    """One contextual policy for every kind of task."""

    state: SkyshoreState

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        miss_share: float = 0.03,
        least_multiplier: float = 5.0,
        largest_multiplier: float = 60.0,
        optimism: float = 0.3,
        floor: float = 0.2,
        ceiling: float = 0.4,
    ) -> None:
        """λ moves between `least_multiplier` and `largest_multiplier`."""
        super().__init__()
        # numpy's exp, because it may round otherwise than the C library's, and logs were recorded with it.
        raise_by, lower_by = (float(np.exp(STEP * (missed / miss_share - 1.0))) for missed in (True, False))
        settings = (optimism, floor, ceiling, least_multiplier, largest_multiplier, raise_by, lower_by)
        self.state = SkyshoreState(
            rng=rng,
            settings=SkyshoreSettings(*map(float, settings)),
            arms=rows(ARM_MODEL, FIRST_ROOM * KINDS, arrays=False),
            mean_joules=floats(KINDS, arrays=False),
            classes=rows(CLASS, MOST_GROUPS, arrays=False),
            alive=floats(MOST_GROUPS, INTERVALS, arrays=False),
            ended=floats(MOST_GROUPS, INTERVALS, arrays=False),
            chance=floats(MOST_GROUPS, EDGES, arrays=False),
            tasks=in_flight_state(),
        )
        self._blank_classes()

    def prepare_arm(self, kind: int, slot: int) -> None:
        """See KernelPolicy."""
        place = place_of(kind, slot)
        _make_room(self.state.arms, ARM_MODEL, place + 1)
        blank_arm_model(self.state.arms, place)

    def prepare_engine(self, kind: int, slot: int) -> None:
        """See KernelPolicy."""
        tasks, place = self.state.tasks, place_of(kind, slot)
        _make_room(tasks.engines, ENGINE, place + 1)
        reset_engine(tasks.engines, tasks.flights, place)

    def prepare_nodes(self, count: int) -> None:
        """See KernelPolicy."""
        start = _make_room(self.state.tasks.nodes, NODE_LOAD, count * KINDS)
        blank_nodes(self.state.tasks.nodes, start)

    def prepare_tasks(self, count: int) -> None:
        """See KernelPolicy."""
        tasks, missing = self.state.tasks, count * KINDS - len(self.state.tasks.flight_of)
        if missing <= 0:
            return
        tasks.flight_of.extend([0] * max(missing, len(tasks.flight_of)))
        room = len(tasks.flight_of) // KINDS
        add_free(tasks.flights, tasks.pools, FLIGHT_POOL, _make_room(tasks.flights, IN_FLIGHT, FLIGHTS_PER_TASK * room))
        start = _make_room(tasks.sendings, SENDING, SENDINGS_PER_TASK * room)
        add_free(tasks.sendings, tasks.pools, SENDING_POOL, start)

    def reason(self, features: tuple[float, ...]) -> str:
        """See KernelPolicy."""
        return f"the deadline would be kept with a chance of {features[1]:.0%}"

    def snapshot(self) -> bytes:
        """Models of every kind, running means, the state of every class. Tasks under way do not outlive a restart."""
        parts = [self._arm_models(kind) for kind in TaskKind]
        used = column(self.state.classes, "used", MOST_GROUPS)
        groups = self.known_groups() | {OTHERS: MOST_GROUPS - 1}
        classes = {name: self._class(group) for name, group in groups.items() if used[group]}
        mean_joules = {kind: float(self.state.mean_joules[number]) for kind, number in KIND_NUMBERS.items()}
        return join_parts([*parts, json.dumps({"classes": classes, "mean_joules": mean_joules}).encode()])

    def restore(self, snapshot: bytes) -> None:
        """See Policy. Arms, engines and classes keep their numbers; attempts in flight are kept too."""
        *tables, scalars = split_parts(snapshot, KINDS + 1)
        models = [_read_arm_models(part) for part in tables]
        classes, mean_joules = _read_classes(scalars)
        arrays = self.arrays
        self.use(arrays=False)
        self._blank_classes()
        for kind, (names, figures) in zip(TaskKind, models, strict=True):
            number = KIND_NUMBERS[kind]
            for slot in self.known_arms(kind).values():
                blank_arm_model(self.state.arms, place_of(number, slot))
            for name, values in zip(names, figures, strict=True):
                _set_figures(self.state.arms[place_of(number, self.arm_number(kind, name))], values)
            self.state.mean_joules[number] = mean_joules[kind]
        for name, learned in classes.items():
            self._set_class(MOST_GROUPS - 1 if name == OTHERS else self.group(name), learned)
        self.use(arrays=arrays)

    def _blank_classes(self) -> None:
        state, settings = self.state, self.state.settings
        for group in range(MOST_GROUPS):
            blank_curve(state.alive[group], state.ended[group], state.chance[group])
            learned = state.classes[group]
            learned.multiplier = (settings.least_multiplier * settings.largest_multiplier) ** 0.5
            learned.missed_share, learned.shortfall, learned.used = 0.0, 0.0, 0

    def _arm_models(self, kind: TaskKind) -> bytes:
        known, number = self.known_arms(kind), KIND_NUMBERS[kind]
        figures = _figures(self.state.arms, [place_of(number, slot) for slot in known.values()])
        return pack(FORMAT, {"arms": np.array(list(known), dtype=np.str_), "figures": figures.T})

    def _class(self, group: int) -> dict[str, float | list[float]]:
        state = self.state
        scalars = {name: float(get(state.classes[group], name)) for name in SCALARS}
        return {"alive": list(map(float, state.alive[group])), "ended": list(map(float, state.ended[group])), **scalars}

    def _set_class(self, group: int, learned: _Class) -> None:
        state = self.state
        state.alive[group][:], state.ended[group][:] = learned.alive, learned.ended
        survive(state.alive[group], state.ended[group], state.chance[group])
        row = state.classes[group]
        row.multiplier, row.missed_share, row.shortfall, row.used = *learned.scalars, 1


def _make_room(records: Records, dtype: np.dtype[np.void], count: int) -> int:
    """Let a list have at least `count` rows; it doubles. Returns how many it had."""
    had = len(records)
    if count > had:
        with_room(records, dtype, max(count, 2 * had))
    return had


def _figures(arms: Records, places: list[int]) -> NDArray[np.float64]:
    """[arms, figures and sums] of the rows at `places`."""
    if isinstance(arms, np.ndarray):
        picked = arms[places]
        return np.column_stack([picked[name] for name in (*FIGURES, "service_sums", "joules_sums")])
    values = [
        [*(getattr(arm, name) for name in FIGURES), *arm.service_sums, *arm.joules_sums]
        for arm in (arms[place] for place in places)
    ]
    return np.array(values, dtype=np.float64).reshape(len(places), len(FIGURES) + 2 * SUMS)


def _set_figures(arm: Record, values: Sequence[float]) -> None:
    for name, value in zip(FIGURES, values, strict=False):
        setattr(arm, name, value)
    arm.service_sums[:] = values[len(FIGURES) : -SUMS]
    arm.joules_sums[:] = values[-SUMS:]


def _read_arm_models(part: bytes) -> tuple[list[str], list[list[float]]]:
    """Names of arms and their figures. Raises ValueError for another format."""
    arrays = unpack(FORMAT, part)
    return arrays["arms"].tolist(), arrays["figures"].astype(np.float64).T.tolist()


def _read_classes(part: bytes) -> tuple[dict[str, _Class], dict[TaskKind, float]]:
    """Classes by name, and J̄ of each kind. Raises ValueError for another format."""
    try:
        content = json.loads(part)
        classes = {name: _read_class(plain) for name, plain in content["classes"].items()}
        return classes, {kind: float(content["mean_joules"][kind]) for kind in TaskKind}
    except (KeyError, TypeError) as error:
        raise ValueError(f"a snapshot without {error}") from error


def _read_class(plain: Mapping[str, Any]) -> _Class:
    alive, ended = (list(map(float, plain[name])) for name in ("alive", "ended"))
    if len(alive) != INTERVALS or len(ended) != INTERVALS:
        raise ValueError(f"a snapshot with {len(alive)} and {len(ended)} intervals of scores, not {INTERVALS}")
    return _Class(alive, ended, [float(plain[name]) for name in SCALARS])
