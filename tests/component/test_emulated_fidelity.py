"""The emulated engine, stepped by an event loop, against the simulator: same arrivals, same latencies and joules."""

import asyncio
import math
import random
import statistics

import numpy as np
import pytest

from simulator.plant import LinkPath, NodePlan
from simulator.policy import PolicyDriver
from simulator.simulation import Simulation, SimulationSettings
from skyshore.domain.llm import LlmInput, Sampling
from skyshore.domain.node import Tier
from skyshore.domain.outcome import Outcome, WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.engines.emulated.llm import EmulatedLlmEngine
from skyshore.links.capacity import Constant
from skyshore.links.settings import Direction
from skyshore.links.shaper import Bucket, DelayLine, LinkDirection
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile
from skyshore.rules.reward import RewardWeights, blank_rewards
from skyshore.workload.arrival import Arrival
from tests.fakes.virtual_time import run_in_virtual_time

SPEED = LlmSpeed(
    "m", "modelled:test", iteration_s=0.02, prefill_token_s=2e-4, row_s=0.002, slots=4, queue=500, busy_watts=60
)
PROMPT_TOKENS = 50


def drawn(load: float, seconds: float) -> list[tuple[float, int]]:
    """Poisson arrivals and answer lengths for about that share of what four rows can decode."""
    rng = random.Random(4)
    mean_tokens = 20
    per_s = load * 4 / ((mean_tokens - 1) * SPEED.iteration_time_s(0, 4) + 4 * SPEED.iteration_time_s(50, 3))
    requests, at = [], 0.0
    while (at := at + rng.expovariate(per_s)) < seconds:
        requests.append((at, 1 + int(rng.expovariate(1 / mean_tokens))))
    return requests


async def live(requests: list[tuple[float, int]]) -> tuple[list[tuple[float, int, WorkerOutcome]], float]:
    engine = await EmulatedLlmEngine.start(SPEED)
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def ask(at: float, tokens: int) -> tuple[float, int, WorkerOutcome]:
        await asyncio.sleep(start + at - loop.time())
        sent = loop.time() - start
        request = LlmInput(prompt="x" * 4 * PROMPT_TOKENS, sampling=Sampling(max_tokens=tokens, ignore_eos=True))
        async for event in engine.generate(Task("t", TaskKind.LLM), request):
            if isinstance(event, WorkerOutcome):
                return sent, tokens, event
        raise AssertionError("no outcome")

    done = await asyncio.gather(*(ask(at, tokens) for at, tokens in requests))
    joules = engine.busy_joules()
    await engine.close()
    return done, joules


def simulated(sent: list[tuple[float, int]]) -> tuple[list[float], float]:
    """Latencies and joules when the simulator gives the same requests to one node, without a link."""
    link = LinkDirection(Bucket(Constant(math.inf)), DelayLine(Direction(), 0.0, np.random.default_rng(0)))
    plan = NodePlan("n", Tier.EDGE, NodeProfile("n", "modelled:test", llm=(SPEED,)), LinkPath(link, link))
    arrivals = [
        Arrival(at, str(i), TaskKind.LLM, prompt_tokens=PROMPT_TOKENS, output_tokens=tokens, deadline_s=1e4)
        for i, (at, tokens) in enumerate(sent)
    ]
    placements = {arrival.request_id: plan.node.arms[0] for arrival in arrivals}
    settings = SimulationSettings(gateway_s=0.0, heartbeat_s=1e6)
    simulation = Simulation([plan], PolicyDriver(placements), blank_rewards(RewardWeights()), settings)
    latencies: list[float] = []

    def ended(outcome: Outcome) -> None:
        latencies.append(outcome.latency_s)

    simulation.run(sorted(arrivals, key=lambda arrival: arrival.t_intended_s), ended)
    return latencies, simulation.joules()["n"]


@pytest.mark.parametrize("load", [0.4, 0.85])
def test_latency_and_joules_agree_with_the_simulator(load):
    # A clock that no busy machine holds up: how late real timers are is the machine's affair, and measured elsewhere.
    outcomes, joules = run_in_virtual_time(live(drawn(load, 60.0)))
    predicted, predicted_joules = simulated([(sent, tokens) for sent, tokens, _ in outcomes])
    measured = [o.queue_s + o.prefill_s + o.compute_s for _, _, o in outcomes]
    assert statistics.median(measured) == pytest.approx(statistics.median(predicted), rel=1e-3)
    assert statistics.quantiles(measured, n=20)[-1] == pytest.approx(
        statistics.quantiles(predicted, n=20)[-1], rel=1e-3
    )
    assert joules == pytest.approx(predicted_joules, rel=1e-3)
