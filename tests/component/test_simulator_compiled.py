"""A simulation in machine code equals the same one in plain Python, to the bit."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.links.settings import Direction
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed
from skyshore.workload.arrival import Arrival
from tests.fakes.random_fleets import arrivals_of, faults, fleets, made, plan_faults, requests
from tests.fakes.simulated import outcomes_of

pytest.importorskip("numba", reason="numba is not installed: pip install 'skyshore[sim]'")

pytestmark = pytest.mark.timeout(900)  # the first run on a machine compiles, half a minute of work if nothing else runs

POLICIES = ("least_loaded", "cs_ucb", "cs_ucb.slotted", "linucb")
"""Of each kind one: a rule without and with a state, one that places by slots, one in Python. Each compiles once."""


def assert_equal(nodes, policy: str, seed: int, arrivals: list[Arrival], broken=(), *, shown=False) -> list[Outcome]:
    found, shows = [], ([], [])
    for arrays in (False, True):
        show = shows[arrays].append if shown else None
        run = made(nodes, policy, seed, arrays=arrays, on_decision=show)
        plan_faults(run, broken)
        outcomes = outcomes_of(run, arrivals)
        found.append((outcomes, run.digest, run.joules(), run.now_s, run.events))
    assert found[0] == found[1]
    assert shows[0] == shows[1]
    return found[0][0]


@settings(max_examples=80, deadline=None)
@given(
    fleets,
    st.sampled_from(POLICIES),
    st.integers(0, 99),
    st.lists(requests, max_size=60),
    st.lists(faults, max_size=4),
)
def test_machine_code_and_plain_python_agree_to_the_bit(nodes, policy, seed, drawn, broken):
    assert_equal(nodes, policy, seed, arrivals_of(drawn), broken)


CROWDED = (
    NodeProfile(
        "p",
        "modelled:test",
        10.0,
        (LlmSpeed("m", "modelled:test", iteration_s=0.05, row_s=0.01, slots=2, queue=1, busy_watts=100),),
        (VideoSpeed("v", "modelled:test", frame_s=0.05, queue=1, bytes_per_frame=1e4, busy_watts=40),),
    ),
    (Direction(1e6), Direction(1e6), "own"),
)


@pytest.mark.parametrize("policy", POLICIES)
def test_crowded_nodes_reject_tasks_and_deadlines_end_them_alike(policy):
    arrivals = [
        Arrival(0.02 * i, f"r{i}", TaskKind.LLM, prompt_tokens=50, output_tokens=20, deadline_s=1.5)
        if i % 3
        else Arrival(0.02 * i, f"r{i}", TaskKind.VIDEO_DETECT, frames=10, fps=5.0, deadline_s=1.5)
        for i in range(300)
    ]
    ended = assert_equal([CROWDED] * 3, policy, 1, arrivals, [(2.0, "crash", 0), (4.0, "boot", 0)], shown=True)
    assert {end.status for end in ended} >= {
        OutcomeStatus.OK,
        OutcomeStatus.REJECTED,
        OutcomeStatus.DEADLINE_EXCEEDED,
    }


def test_there_is_room_for_any_number_of_tasks_notes_and_deviates():
    """More requests than one batch, more tasks at once than the first room, more draws than are made ahead."""
    profile, _ = CROWDED
    roomy = replace(profile, llm=(replace(profile.llm[0], queue=4000, slots=64, kv_tokens=10**8),))
    jittery = Direction(1e8, jitter_s=0.001, loss=0.01)
    arrivals = [
        Arrival(0.001 * i, f"r{i}", TaskKind.LLM, prompt_tokens=5, output_tokens=2, deadline_s=2.0)
        for i in range(10_000)
    ]
    assert_equal([(roomy, (jittery, jittery, "own"))] * 2, "least_loaded", 1, arrivals)
