"""The clairvoyant bound of a planned cell: the deadlines met that no schedule can exceed, even with full knowledge.

A relaxation (see `scheduling.clairvoyant`). A task takes from a language-model node with `slots` rows at least its
prefill, its own rows, and its share of full iterations; from a detector, its frames. Whether a deadline can be met at
all is computed for an idle node behind an idle link. A link with a rate trace counts as infinitely fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.plan.cell import PlannedCell
from simulator.build import settings_of
from simulator.preferences import SegmentPictures
from simulator.requests import TaskRequest, frames_sent, request_of
from skyshore.domain.node import Arm
from skyshore.links.shaper import LEAST_BURST_BYTES, LONGEST_BURST_S
from skyshore.nodemodel.arms import llm_arm, video_arms
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.policies.protocol import Floats
from skyshore.scenario.files import calibration_of, profile_of
from skyshore.scenario.links import MBIT_BYTES
from skyshore.scenario.schema import DirectionTable, LinkTable
from skyshore.scheduling.clairvoyant import History, most_met

WINDOWS = (4.0, 20.0)
"""Windows of the relaxation, as multiples of the longest deadline."""
MOST_CELLS = 50_000
"""Limit of tasks × windows; above it only the run as a whole is bounded, because more would take minutes."""


@dataclass(frozen=True, slots=True)
class Server:
    """One engine of one node, as one arm uses it."""

    number: int
    """Of the engine; the arms of one engine share it."""
    arm: Arm
    speed: LlmSpeed | VideoSpeed
    gateway_s: float
    """From arrival to dispatch, and the hops to the node and back."""
    delay_s: float
    """Propagation, both ways."""
    up_bytes_per_s: float

    def takes(self, request: TaskRequest) -> bool:
        """Whether the arm can answer the task with enough quality."""
        return self.arm.kind is request.task.kind and self.arm.quality >= request.task.min_quality

    def work_s(self, request: TaskRequest) -> float:
        """Seconds of the engine that a task takes at least: of one slot, or of a batch that is full."""
        speed, arrival = self.speed, request.arrival
        if isinstance(speed, VideoSpeed):
            return speed.segment_s + frames_sent(arrival, self.arm) * self.arm.frame_s
        shared_s = (arrival.output_tokens - 1) * speed.iteration_s
        return self._own_s(request, speed) + shared_s / speed.slots

    def alone_s(self, request: TaskRequest) -> float:
        """Seconds from arrival to answer on an idle node behind an idle link."""
        speed, arrival = self.speed, request.arrival
        # An idle link has a full token bucket, so it carries a burst at once.
        burst = max(LEAST_BURST_BYTES, self.up_bytes_per_s * LONGEST_BURST_S)
        sent_s = max(0.0, request.bytes_to(self.arm) - burst) / self.up_bytes_per_s
        delay_s = self.gateway_s + self.delay_s
        if isinstance(speed, VideoSpeed):  # starts with the first frame
            return delay_s + max(self.work_s(request), sent_s + self.arm.frame_s)
        # At least one iteration for the prompt, which gives the first token; one for every other.
        return delay_s + sent_s + self._own_s(request, speed) + arrival.output_tokens * speed.iteration_s

    @staticmethod
    def _own_s(request: TaskRequest, speed: LlmSpeed) -> float:
        """Seconds that no batch shares: its prefill and its rows."""
        arrival = request.arrival
        return arrival.prompt_tokens * speed.prefill_token_s + (arrival.output_tokens - 1) * speed.row_s


def met_bound(plan: PlannedCell) -> float:
    """Upper bound on the deadlines that any schedule of the requests can meet.

    Raises:
        InvalidScenario: a profile or trace cannot be used.
    """
    requests = requests_of(plan)
    if not requests:
        return 0.0
    servers = list(servers_of(plan))
    work_s, alone_s = np.full((2, len(requests), len(servers)), np.inf)
    for row, request in enumerate(requests):
        for column, server in enumerate(servers):
            if server.takes(request):
                work_s[row, column], alone_s[row, column] = server.work_s(request), server.alone_s(request)
    possible = np.isfinite(work_s)
    deadline_s = np.array([request.task.deadline_s for request in requests])
    work_s = np.where(possible, work_s, deadline_s[:, None] + 1.0)  # never taken, but finite
    history = History(
        arrival_s=np.array([request.arrival.t_intended_s for request in requests]),
        deadline_s=deadline_s,
        work_s=work_s,
        link_s=np.where(possible, alone_s, work_s) - work_s,
        joules=np.zeros_like(work_s),
        node=np.array([server.number for server in servers]),
        slots=_slots(servers),
    )
    longest_s = float(deadline_s.max())
    windows_s = tuple(factor * longest_s for factor in WINDOWS)
    affordable = len(requests) * plan.schedule.duration_s / min(windows_s) <= MOST_CELLS
    return most_met(history, windows_s=windows_s if affordable else ())


def _slots(servers: list[Server]) -> Floats:
    """Engines by number. A batch shares its iterations, which the work already counts: one slot."""
    slots = np.ones(1 + max(server.number for server in servers))
    for server in servers:
        slots[server.number] = server.speed.slots if isinstance(server.speed, VideoSpeed) else 1.0
    return slots


def requests_of(plan: PlannedCell) -> list[TaskRequest]:
    """Every request as the scheduler would see it, in order of arrival."""
    pictures = SegmentPictures()
    return [request_of(arrival, pictures) for arrival in plan.schedule.arrivals]


def servers_of(plan: PlannedCell) -> Iterator[Server]:
    """Every arm of every node of a plan. Raises InvalidScenario for a profile that cannot be used."""
    numbers: dict[tuple[str, str], int] = {}
    known = calibration_of(plan.scenario, plan.folder)
    settings = settings_of(known.overheads)
    for table in plan.scenario.nodes:
        stated = profile_of(table, plan.folder)
        for node_id in table.ids:
            profile = known.nodes.get(node_id, stated)
            link = plan.scenario.link_of(node_id) or LinkTable(nodes=node_id)
            delay_s = (link.up.delay_ms + link.down.delay_ms) / 1000
            rate = _rate(link.up)
            offered: list[tuple[Arm, LlmSpeed | VideoSpeed]] = [
                (llm_arm(node_id, speed), speed) for speed in profile.llm
            ]
            speeds = {speed.model: speed for speed in profile.video}
            offered += [(arm, speeds[arm.model]) for arm in video_arms(node_id, profile.video)]
            for arm, speed in offered:
                number = numbers.setdefault((node_id, speed.model), len(numbers))
                yield Server(number, arm, speed, settings.gateway_s + 2 * settings.hop_s, delay_s, rate)


def _rate(direction: DirectionTable) -> float:
    return np.inf if direction.rate_mbit_s is None or direction.trace else direction.rate_mbit_s * MBIT_BYTES
