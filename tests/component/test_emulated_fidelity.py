"""The emulated engine, stepped by an event loop, against the simulator: same arrivals, same latencies and joules."""

import asyncio
import random
import statistics

import pytest

from simulator.servers import LlmServer
from simulator.timeline import Timeline
from skyshore.domain.llm import LlmInput, Sampling
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task, TaskKind
from skyshore.engines.emulated.llm import EmulatedLlmEngine
from skyshore.nodemodel.llm import Row
from skyshore.nodemodel.speed import LlmSpeed
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


def simulated(arrivals: list[tuple[float, int]]) -> tuple[list[Row], float]:
    timeline, rows, done = Timeline(), [], {}
    server = LlmServer(SPEED, timeline, lambda row: done.__setitem__(row, timeline.now_s))
    for at, tokens in arrivals:
        row = Row("t", PROMPT_TOKENS, tokens, PROMPT_TOKENS + tokens, at)
        rows.append(row)
        timeline.at(at, server.offer, row)
    timeline.run()
    for row in rows:
        row.arrived_s = done[row] - row.arrived_s  # from here on: its latency
    return rows, SPEED.busy_watts * server.busy_s(timeline.now_s)


@pytest.mark.parametrize("load", [0.4, 0.85])
def test_latency_and_joules_agree_with_the_simulator(load):
    # A clock that no busy machine holds up: how late real timers are is the machine's affair, and measured elsewhere.
    outcomes, joules = run_in_virtual_time(live(drawn(load, 60.0)))
    rows, predicted_joules = simulated([(sent, tokens) for sent, tokens, _ in outcomes])
    lived = [o.queue_s + o.prefill_s + o.compute_s for _, _, o in outcomes]
    predicted = [row.arrived_s for row in rows]
    assert statistics.median(lived) == pytest.approx(statistics.median(predicted), rel=1e-3)
    assert statistics.quantiles(lived, n=20)[-1] == pytest.approx(statistics.quantiles(predicted, n=20)[-1], rel=1e-3)
    assert joules == pytest.approx(predicted_joules, rel=1e-3)
