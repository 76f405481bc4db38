"""The clairvoyant bound of a planned cell: how many deadlines no schedule could have exceeded, everything known.

A relaxation (see `scheduling.clairvoyant`). A language-model node with `slots` rows spends on a task at least its
prefill, its own rows, and its share of iterations that are full; a detector its frames. Whether a deadline can be kept
at all is asked of an idle node behind an idle link; a link whose rate a trace moves counts as endlessly fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.cell import Plan
from simulator.build import profile_of
from simulator.cluster import ClusterSettings
from simulator.flight import Flight, flight_of
from simulator.preferences import SegmentPictures
from skyshore.domain.node import Arm
from skyshore.domain.task import TaskKind
from skyshore.nodemodel.arms import llm_arm, video_arms
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.policies.protocol import Floats
from skyshore.scenario import DirectionTable, LinkTable
from skyshore.scenario_links import MBIT_BYTES
from skyshore.scheduling.clairvoyant import History, most_met

WINDOWS = (4.0, 20.0)
"""Windows of the relaxation, in longest deadlines."""
MOST_CELLS = 50_000
"""Tasks × windows beyond which only the run as a whole is looked at: short deadlines would take minutes."""


@dataclass(frozen=True, slots=True)
class _Server:
    """One engine of one node, as one arm uses it."""

    number: int
    arm: Arm
    speed: LlmSpeed | VideoSpeed
    delay_s: float
    up_bytes_per_s: float


def met_bound(plan: Plan) -> float:
    """Upper bound on the deadlines that any schedule of the plan's requests keeps. Raises as reading the plan does."""
    pictures = SegmentPictures()
    flights = [flight_of(arrival, arrival.t_intended_s, pictures) for arrival in plan.schedule.arrivals]
    if not flights:
        return 0.0
    servers = list(_servers(plan))
    work_s, alone_s = np.full((2, len(flights), len(servers)), np.inf)
    for row, flight in enumerate(flights):
        for column, server in enumerate(servers):
            if server.arm.kind is flight.task.kind and server.arm.quality >= flight.task.min_quality:
                work_s[row, column], alone_s[row, column] = _needs(flight, server)
    possible = np.isfinite(work_s)
    deadline_s = np.array([flight.task.deadline_s for flight in flights])
    work_s = np.where(possible, work_s, deadline_s[:, None] + 1.0)  # never taken, but finite
    history = History(
        arrival_s=np.array([flight.arrived_s for flight in flights]),
        deadline_s=deadline_s,
        work_s=work_s,
        way_s=np.where(possible, alone_s, work_s) - work_s,
        joules=np.zeros_like(work_s),
        node=np.array([server.number for server in servers]),
        slots=_slots(servers),
    )
    longest_s = float(deadline_s.max())
    windows_s = tuple(factor * longest_s for factor in WINDOWS)
    affordable = len(flights) * plan.schedule.duration_s / min(windows_s) <= MOST_CELLS
    return most_met(history, windows_s=windows_s if affordable else ())


def _slots(servers: list[_Server]) -> Floats:
    """Engines by number. A batch shares its iterations, which the work already counts: one slot."""
    slots = np.ones(1 + max(server.number for server in servers))
    for server in servers:
        slots[server.number] = server.speed.slots if isinstance(server.speed, VideoSpeed) else 1.0
    return slots


def _servers(plan: Plan) -> Iterator[_Server]:
    numbers: dict[tuple[str, str], int] = {}
    for table in plan.scenario.nodes:
        profile = profile_of(table, plan.folder)
        for node_id in table.ids:
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
                yield _Server(number, arm, speed, delay_s, rate)


def _rate(way: DirectionTable) -> float:
    return np.inf if way.rate_mbit_s is None or way.trace else way.rate_mbit_s * MBIT_BYTES


def _needs(flight: Flight, server: _Server) -> tuple[float, float]:
    """Seconds of the engine it takes at least, and seconds from arrival to answer on an idle node."""
    speed, arrival = server.speed, flight.arrival
    way_s = ClusterSettings().gateway_s + server.delay_s + flight.bytes_to(server.arm) / server.up_bytes_per_s
    if isinstance(speed, VideoSpeed):
        work_s = speed.segment_s + -(-arrival.frames // server.arm.frame_stride) * server.arm.frame_s
        return work_s, way_s + work_s
    assert flight.task.kind is TaskKind.LLM, "kinds were compared before"
    prefill_s, rows_s = arrival.prompt_tokens * speed.prefill_token_s, (arrival.output_tokens - 1) * speed.row_s
    chunks = -(-arrival.prompt_tokens // speed.chunk_tokens)
    shared_s = (arrival.output_tokens - 1) * speed.iteration_s
    alone_s = prefill_s + rows_s + shared_s + chunks * speed.iteration_s
    return prefill_s + rows_s + shared_s / speed.slots, way_s + alone_s
