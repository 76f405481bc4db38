"""What goes wrong in a scenario goes wrong in the simulation: nodes that join, die, come back and grow slow."""

from pathlib import Path

import pytest

from simulator.build import build
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.policies.baselines.bad import Slowest
from skyshore.scenario import InvalidScenario, read_scenario
from skyshore.workload.arrival import Arrival
from tests.fakes.simulated import outcomes_of

SCENARIO = """
name = "faults"
duration_s = 60
[[nodes]]
id = "a"
tier = "edge"
profile = "a100"
models = ["llama3-8b", "nanodet"]
[[nodes]]
id = "b"
tier = "edge"
profile = "a100"
models = ["llama3-8b", "nanodet"]
[[workload.llm]]
rate_per_s = 1
"""


def played(faults: str, arrivals: list[Arrival], policy: str = "least_loaded"):
    scenario = read_scenario(SCENARIO + faults).model_copy(update={"policy": policy})
    return outcomes_of(build(scenario, Path()), arrivals)


def chats(*times: float, output: int = 100) -> list[Arrival]:
    return [Arrival(at, f"r{at:g}", TaskKind.LLM, prompt_tokens=50, output_tokens=output) for at in times]


def clips(*times: float) -> list[Arrival]:
    return [Arrival(at, f"v{at:g}", TaskKind.VIDEO_DETECT, frames=50, fps=25.0) for at in times]


def fault(kind: str, node: str, at_s: float, **more: float) -> str:
    lines = [f'[[faults]]\nkind = "{kind}"\nnode = "{node}"\nat_s = {at_s}\n']
    return "".join(lines + [f"{name} = {value}\n" for name, value in more.items()])


def test_a_node_joins_when_it_boots():
    outcomes = played(fault("crash", "b", 0, for_s=20), chats(*(5 + i / 10 for i in range(200))))
    assert {outcome.status for outcome in outcomes} == {OutcomeStatus.OK}
    first_s = min(outcome.finished_at_s for outcome in outcomes if outcome.node_id == "b")
    assert 20 < first_s < 23, "soon after it boots, and never before"


def test_faults_at_one_time_happen_in_the_order_of_the_file():
    lost, start = fault("crash", "a", 5.01), fault("boot", "b", 5.01)
    (outcome,) = played(fault("crash", "b", 0) + lost + start, chats(5))
    assert outcome.status is OutcomeStatus.FAILED, "its retry is decided before the other node starts"
    (outcome,) = played(fault("crash", "b", 0) + start + lost, chats(5))
    assert (outcome.status, outcome.node_id) == (OutcomeStatus.OK, "b")


def test_a_crash_loses_tasks_in_the_order_in_which_they_came():
    # The first four have left, last one latest, when the others come; of those, three wait for the first.
    faults = fault("crash", "b", 0) + fault("crash", "a", 5.05)
    outcomes = played(faults, clips(1.0, 1.01, 1.02, 1.03, 5.0, 5.01, 5.0101, 5.0102))
    assert [outcome.task_id for outcome in outcomes[4:]] == ["v5", "v5.01", "v5.0101", "v5.0102"]


def test_a_crash_ends_or_retries_its_tasks_one_by_one():
    faults = fault("crash", "b", 0) + fault("crash", "a", 5.3)
    scenario = read_scenario(SCENARIO.replace('"nanodet"', '"yi-6b"') + faults)
    prefilling = Arrival(5.0, "prefilling", TaskKind.LLM, prompt_tokens=8000, output_tokens=10)
    begun = Arrival(5.05, "begun", TaskKind.LLM, prompt_tokens=10, output_tokens=1000)
    simulation = build(scenario.model_copy(update={"policy": "round_robin"}), Path())
    outcomes = outcomes_of(simulation, [prefilling, begun])
    assert [(outcome.task_id, outcome.arm_id) for outcome in outcomes] == [("prefilling", ""), ("begun", "a/yi-6b")]


def test_a_policy_in_python_learns_of_each_attempt_of_a_task_that_ended():
    late = Arrival(5.0, "late", TaskKind.LLM, prompt_tokens=50, output_tokens=100, deadline_s=0.02)
    statuses = []

    class Listening(Slowest):
        def __init__(self):
            """No generator."""

        def update(self, feedback):
            statuses.append(feedback.outcome.status)

    scenario = read_scenario(SCENARIO + fault("crash", "a", 5.01))
    simulation = build(scenario, Path(), policy=Listening())
    outcomes_of(simulation, [late])
    assert statuses == [OutcomeStatus.FAILED, OutcomeStatus.DEADLINE_EXCEEDED]


def test_a_lost_node_gets_nothing_until_it_is_back():
    outcomes = played(fault("crash", "a", 10, for_s=10), chats(*(i / 10 for i in range(300))))
    began_s = [outcome.finished_at_s - outcome.latency_s for outcome in outcomes if outcome.node_id == "a"]
    assert not [at for at in began_s if 10 <= at < 20]
    assert [at for at in began_s if at < 10]
    assert [at for at in began_s if at > 20]


@pytest.mark.parametrize("make", [chats, clips])
def test_a_drift_stretches_work_begun_meanwhile(make):
    drift = fault("drift", "a", 10, slowdown=3, for_s=10) + fault("drift", "b", 10, slowdown=3, for_s=10)
    outcomes = played(drift, make(5.0, 15.0, 25.0))
    before, during, after = (outcome.worker.compute_s for outcome in sorted(outcomes, key=lambda o: o.finished_at_s))
    assert during == pytest.approx(3 * before)
    assert after == pytest.approx(before)


def test_a_drift_meets_an_answer_under_way_at_its_next_token():
    alone = fault("crash", "b", 0)
    (steady,) = played(alone, chats(8.0, output=1000))
    began_s = steady.finished_at_s - steady.worker.compute_s
    at_s = began_s + steady.worker.compute_s / 2
    (slowed,) = played(alone + fault("drift", "a", at_s, slowdown=2), chats(8.0, output=1000))
    assert slowed.worker.compute_s == pytest.approx(1.5 * steady.worker.compute_s, rel=0.01)


def test_policies_that_learn_leave_a_node_that_drifts():
    arrivals = chats(*(i / 5 for i in range(600)))
    outcomes = played(fault("drift", "a", 30, slowdown=8), arrivals, policy="skyshore")
    late = [outcome.node_id for outcome in outcomes if outcome.finished_at_s > 60]
    assert late.count("a") < 0.25 * len(late), "the node says it is as fast as ever; its outcomes say otherwise"


@pytest.mark.parametrize("wrong", [fault("drift", "a", 1), fault("crash", "a", 1, slowdown=2)])
def test_a_drift_says_how_slow(wrong):
    with pytest.raises(InvalidScenario, match="slowdown"):
        read_scenario(SCENARIO + wrong)
