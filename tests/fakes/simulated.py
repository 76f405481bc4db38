"""Small simulated fleets: nodes, links and requests with round numbers, and one run of them."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from simulator.plant import LinkPath, NodePlan
from simulator.policy import DecidingPolicy
from simulator.simulation import Simulation, SimulationSettings
from skyshore.domain.node import Tier
from skyshore.domain.outcome import Outcome
from skyshore.domain.placement import DecisionRecord
from skyshore.domain.task import TaskKind
from skyshore.domain.video import Codec
from skyshore.links.settings import Direction
from skyshore.links.shaper import Bucket, DelayLine, LinkDirection, capacity_of
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed
from skyshore.policies.registry import create_policy
from skyshore.rules.reward import RewardWeights, blank_rewards
from skyshore.workload.arrival import Arrival

LLM = LlmSpeed("m", "modelled:test", iteration_s=0.02, prefill_token_s=1e-4, row_s=0.001, slots=4, busy_watts=100)
VIDEO = VideoSpeed("v", "modelled:test", frame_s=0.01, bytes_per_frame=1e4, busy_watts=40, codec=Codec.H264)
PROFILE = NodeProfile("p", "modelled:test", 10.0, (LLM,), (VIDEO,))
LINK = Direction(rate_bytes_per_s=1e6, delay_s=0.01)


def path(direction: Direction = LINK, seed: int = 0) -> LinkPath:
    up, down = (
        LinkDirection(
            Bucket(capacity_of(direction, None)), DelayLine(direction, 0.02, np.random.default_rng([seed, number]))
        )
        for number in (0, 1)
    )
    return LinkPath(up, down, joules_per_byte=1e-6)


def plan(
    name: str = "n", tier: Tier = Tier.EDGE, profile: NodeProfile = PROFILE, direction: Direction = LINK, host: str = ""
) -> NodePlan:
    return NodePlan(name, tier, profile, path(direction, len(name)), host)


def simulation(
    *plans: NodePlan,
    policy: str = "least_loaded",
    seed: int = 0,
    on_decision: Callable[[DecisionRecord], None] | None = None,
    settings: SimulationSettings | None = None,
    contention: float = 0.0,
    arrays: bool = False,
) -> Simulation:
    driver = DecidingPolicy(policy, create_policy(policy, np.random.default_rng([seed, 0])), on_decision)
    rewards = blank_rewards(RewardWeights())
    return Simulation(plans, driver, rewards, settings, contention=contention, arrays=arrays)


def outcomes_of(run: Simulation, arrivals: Iterable[Arrival]) -> list[Outcome]:
    """Play to the end."""
    outcomes: list[Outcome] = []
    run.run(arrivals, outcomes.append)
    return outcomes


def play(*arrivals: Arrival, plans: Iterable[NodePlan] = (), policy: str = "least_loaded") -> list[Outcome]:
    """Outcomes of a fleet of one node, or of the given ones."""
    return outcomes_of(simulation(*(tuple(plans) or (plan(),)), policy=policy), arrivals)


def chat(at: float = 0.0, name: str = "r", prompt: int = 100, output: int = 10, deadline: float = 60.0) -> Arrival:
    return Arrival(at, name, TaskKind.LLM, prompt_tokens=prompt, output_tokens=output, deadline_s=deadline)


def clip(at: float = 0.0, name: str = "v", frames: int = 20) -> Arrival:
    return Arrival(at, name, TaskKind.VIDEO_DETECT, frames=frames, fps=10.0, objects_per_frame=2.0)


def one_slot(queue: int = 16) -> NodeProfile:
    """A node that serves one language task at a time and no video."""
    return replace(PROFILE, llm=(replace(LLM, slots=1, queue=queue),), video=())
