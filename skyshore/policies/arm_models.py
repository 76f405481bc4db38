"""What is learned of each arm of one kind: how far its stated speed, energy and quality are from the truth.

The scheduler's estimates carry the context (prompt and answer length, frames, queue, link); a few learned factors per
arm correct them, so one outcome teaches about tasks of every size:

    service  = stated service · (u₀ + u₁·c)        c = share of the arm's slots that others take, over the stay
    joules   = stated joules · (v₀ + v₁/n)         n tasks on the node, this one counted: a batch shares its iterations
    latency  = start + queue + service + rest       start: its bytes are there and its engine is free (`in_flight`)
    σ        = mean |measured − predicted| / predicted

u and v are ridge regressions with forgetting, pulled towards (1, 1) and (½, ½): an arm never met is believed on its
word, but twice as slow with all slots taken, and half of what a lone task burns is thought to be shared in company. v₀
is then what one more task adds to a node that works anyway, and v₁ what it costs to keep a node working for it alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyshore.policies.arm_slots import ArmSlots
from skyshore.policies.protocol import ArmEstimate, Arms, Floats
from skyshore.policies.snapshot import pack, unpack

FORGET = 0.98
"""Kept of the past per outcome of the same arm: half is forgotten after 35."""
BELIEF = 5.0
"""Weight of an arm's word, in outcomes."""
SERVICE_BELIEF = (1.0, 1.0)
ENERGY_BELIEF = (0.5, 0.5)
FIRST_SPREAD = 0.25
"""σ of an arm never met."""
LEAST_SPREAD = 0.02
LARGEST_ERROR = 2.0
"""Relative errors count up to this, so that one outlier does not make an arm look like a lottery."""
LEAST_SHARE = 0.25
"""However fast an arm has been, it is not believed to take less than this share of the estimate."""
UNKNOWN_WATTS = 10.0
"""Stands for an arm that states no power, so that its joules can be learned as a multiple."""
FAILURE_FADES_S = 30.0
"""A failure counts half after some 20 s without another."""
FIRST_ROOM = 16
MOST_RATIO = 50.0

# Rows of the block of learned figures.
U0, U1, V0, V1, REST_S, SPREAD, COUNT, QUALITY, FAILED, FAILED_AT_S, GROWTH = range(11)
ROWS = 11
# Rows of the regressions' sums: of weight, c, c², y, c·y.
SUMS = 5


class ArmModels:
    """Learned figures of all arms of one kind, in columns."""

    def __init__(self) -> None:
        self.slots = ArmSlots(self._prepare)
        self._block: Floats = np.zeros((ROWS, FIRST_ROOM))
        self._service: Floats = np.zeros((SUMS, FIRST_ROOM))
        self._energy: Floats = np.zeros((SUMS, FIRST_ROOM))

    def of(self, arms: Arms) -> Floats:
        """Learned figures of the rows of `arms`: [ROWS, len(arms)]."""
        where = self.slots.of(arms)  # first: it may make room, which replaces the block
        return self._block[:, where]

    def of_arm(self, arm_id: str) -> Floats:
        """Learned figures of one arm: [ROWS]."""
        slot = self.slots.of_arm(arm_id)
        return self._block[:, slot]

    def learn_service(self, arm: ArmEstimate, service_s: float, others: float) -> None:
        """A measured time of service, and how many others were there meanwhile on average."""
        if arm.service_s > 0:
            ratio = min(service_s / arm.service_s, MOST_RATIO)
            slot = self.slots.of_arm(arm.arm_id)
            self._block[U0 : U1 + 1, slot] = _regress(
                self._service[:, slot], float(crowd(others, arm.slots)), ratio, SERVICE_BELIEF
            )

    def learn_growth(self, arm: ArmEstimate, others: float) -> None:
        """How many more others were there on average than when the task was placed."""
        column = self.of_arm(arm.arm_id)
        column[GROWTH] += (others - arm.load - column[GROWTH]) / (BELIEF + min(column[COUNT], 20.0))

    def learn_joules(self, arm: ArmEstimate, joules: float) -> None:
        """Measured joules, idle share apart."""
        slot = self.slots.of_arm(arm.arm_id)
        ratio = min(joules / stated_joules(arm), MOST_RATIO)
        self._block[V0 : V1 + 1, slot] = _regress(self._energy[:, slot], 1.0 / (1.0 + arm.load), ratio, ENERGY_BELIEF)

    def learn_latency(self, arm: ArmEstimate, latency_s: float, predicted_s: float) -> None:
        """A measured latency beside what was predicted."""
        column = self.of_arm(arm.arm_id)
        weight = 1.0 / (BELIEF + 3.0 + column[COUNT])
        error = latency_s - predicted_s
        column[REST_S] += weight * error
        relative = min(abs(error) / predicted_s, LARGEST_ERROR)
        column[SPREAD] = max(column[SPREAD] + weight * (relative - column[SPREAD]), LEAST_SPREAD)
        column[COUNT] = FORGET * column[COUNT] + 1.0

    def learn_quality(self, arm: ArmEstimate, quality: float) -> None:
        """A measured quality; kept as the difference to what the arm states."""
        column = self.of_arm(arm.arm_id)
        column[QUALITY] += (quality - arm.quality - column[QUALITY]) / (10.0 + column[COUNT])

    def learn_end(self, arm: ArmEstimate, now_s: float, *, failed: bool) -> None:
        """Whether the arm answered at all."""
        column = self.of_arm(arm.arm_id)
        before = faded_failure(column[FAILED], column[FAILED_AT_S], now_s)
        column[FAILED] = 0.8 * before + 0.2 * failed
        column[FAILED_AT_S] = now_s

    def snapshot(self, kind: str) -> bytes:
        """Everything, as bytes."""
        known = self.slots.known()
        where = np.fromiter(known.values(), dtype=np.intp, count=len(known))
        stacked = np.concatenate([self._block, self._service, self._energy])[:, where]
        return pack(kind, {"arms": np.array(list(known), dtype=np.str_), "figures": stacked})

    def restore(self, kind: str, data: bytes) -> None:
        """Replace everything. Raises ValueError for another format."""
        arrays = unpack(kind, data)
        figures: NDArray[np.float64] = arrays["figures"].astype(np.float64)
        for column, arm_id in enumerate(arrays["arms"].tolist()):
            slot = self.slots.of_arm(arm_id)
            self._block[:, slot] = figures[:ROWS, column]
            self._service[:, slot] = figures[ROWS : ROWS + SUMS, column]
            self._energy[:, slot] = figures[ROWS + SUMS :, column]

    def _prepare(self, slot: int) -> None:
        if slot >= self._block.shape[1]:
            self._block, self._service, self._energy = (
                np.concatenate([old, np.zeros_like(old)], axis=1) for old in (self._block, self._service, self._energy)
            )
        self._block[:, slot] = 0.0
        self._block[U0 : V1 + 1, slot] = (*SERVICE_BELIEF, *ENERGY_BELIEF)
        self._block[SPREAD, slot] = FIRST_SPREAD
        self._service[:, slot] = self._energy[:, slot] = 0.0


def crowd(others: Floats | float, slots: Floats | float) -> Floats:
    """Share of the slots that `others` take while one is ours."""
    taken: Floats = np.minimum(np.maximum(others, 0.0), slots - 1.0) / slots
    return taken


def stated_joules(arm: ArmEstimate) -> float:
    """What the estimate says, or a stand-in for an arm that states no power."""
    return arm.joules or UNKNOWN_WATTS * max(arm.service_s, 1e-6)


def predicted_latency_s(arm: ArmEstimate, learned: Floats, start_s: float, queue_s: float) -> float:
    """The latency of one dispatched task under what is learned of its arm; what was before its service is given."""
    service_s = arm.service_s * (learned[U0] + learned[U1] * crowd(arm.load + learned[GROWTH], arm.slots))
    latency_s = start_s + queue_s * learned[U0] + service_s + learned[REST_S]
    return float(max(latency_s, LEAST_SHARE * (arm.transmission_s + arm.service_s) + 1e-3))


def faded_failure(share: float, at_s: float, now_s: float) -> float:
    """The share of failures as it counts now."""
    return float(share * np.exp(-max(now_s - at_s, 0.0) / FAILURE_FADES_S))


def _regress(sums: Floats, x: float, ratio: float, belief: tuple[float, float]) -> tuple[float, float]:
    """Take in (1, x) → ratio and solve the two by two ridge regression towards `belief`."""
    sums *= FORGET
    sums += (1.0, x, x * x, ratio, x * ratio)
    weight, c, cc, y, cy = sums.tolist()
    weight, cc, y, cy = weight + BELIEF, cc + BELIEF, y + BELIEF * belief[0], cy + BELIEF * belief[1]
    determinant = weight * cc - c * c
    return (cc * y - c * cy) / determinant, (weight * cy - c * y) / determinant
