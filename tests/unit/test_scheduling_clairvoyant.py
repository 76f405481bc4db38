"""The bounds hold: nothing beats them, and where the truth can be computed they come near it."""

import numpy as np
import pytest

from skyshore.scheduling.clairvoyant import History, best_fixed_arm, least_joules, most_met
from skyshore.scheduling.core import CoreSettings
from tests.fakes.queue_model import QueueModel, TrueNode, digest_fleet, llm_arrivals


def history_of(fleet: list[TrueNode], arrivals: list) -> History:
    """Truth of a world without jitter and crowding."""
    arms = [true.node.arms[0] for true in fleet]
    prompt = np.array([a.profile.prompt_tokens for a in arrivals])[:, None]
    answer = np.array([a.output_tokens for a in arrivals])[:, None]
    size = np.array([a.profile.input_bytes for a in arrivals])[:, None]
    slowness = np.array([true.slowness for true in fleet])
    prefill, decode = (np.array([getattr(a, f"{part}_tokens_per_s") for a in arms]) for part in ("prefill", "decode"))
    work_s = (prompt / prefill + answer / decode) * slowness
    links = [true.link for true in fleet]
    link_s = size / np.array([link.up_bytes_per_s for link in links]) + np.array([link.rtt_s for link in links])
    watts = np.array([arm.busy_watts for arm in arms])
    return History(
        arrival_s=np.array([a.at_s for a in arrivals]),
        deadline_s=np.array([a.task.deadline_s for a in arrivals]),
        work_s=work_s,
        link_s=link_s,
        joules=work_s * watts,
        node=np.arange(len(arms)),
        slots=np.array([float(arm.slots) for arm in arms]),
    )


def calm_fleet() -> list[TrueNode]:
    return [TrueNode(t.node, t.capacity, t.slowness, link=t.link) for t in digest_fleet()]


@pytest.mark.parametrize("rate_per_s", [1.0, 4.5, 12.0])
@pytest.mark.parametrize("policy", ["skyshore", "shortest_delay", "cs_ucb.reject"])
def test_no_policy_beats_the_bound(rate_per_s, policy):
    arrivals, fleet = llm_arrivals(rate_per_s, 300, seed=4), calm_fleet()
    run = QueueModel(fleet, CoreSettings(policy=policy), seed=1).play(arrivals)
    history = history_of(fleet, arrivals)
    assert sum(outcome.met_deadline for outcome in run.outcomes) <= most_met(history) + 1e-6
    cheapest = dict(zip([a.task.task_id for a in arrivals], least_joules(history), strict=True))
    for outcome in run.outcomes:
        if outcome.met_deadline:
            assert outcome.worker.inference_joules >= cheapest[outcome.task_id] - 1e-6


def test_the_bound_bites_when_there_is_too_much_work():
    arrivals, fleet = llm_arrivals(12.0, 300, seed=4), calm_fleet()
    history = history_of(fleet, arrivals)
    assert most_met(history) < 0.9 * history.possible.any(axis=1).sum()


def test_one_node_that_can_serve_half_is_bounded_by_half():
    """Ten tasks of 1 s, all due within the same 5 s, one slot: five can be met, and the bound says so."""
    history = History(
        arrival_s=np.zeros(10),
        deadline_s=np.full(10, 5.0),
        work_s=np.ones((10, 1)),
        link_s=np.zeros((10, 1)),
        joules=np.ones((10, 1)),
        node=np.array([0]),
        slots=np.array([1.0]),
    )
    assert most_met(history) == pytest.approx(5.0, abs=0.1)


def test_the_bound_comes_near_the_linear_programme_it_relaxes():
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed")
    arrivals, fleet = llm_arrivals(9.0, 60, seed=7), calm_fleet()
    history = history_of(fleet, arrivals)
    whole_s = float((history.arrival_s + history.deadline_s).max())
    tasks, arms = history.work_s.shape
    once = np.kron(np.eye(tasks), np.ones(arms))
    room = np.stack([(history.work_s * (history.node == n)).ravel() for n in range(arms)])
    solved = optimize.linprog(
        -np.ones(tasks * arms),
        A_ub=np.vstack([once, room]),
        b_ub=np.concatenate([np.ones(tasks), history.slots * whole_s]),
        bounds=[(0, float(ok)) for ok in history.possible.ravel()],
    )
    assert most_met(history, windows_s=()) == pytest.approx(-solved.fun, rel=0.03)


def test_the_best_fixed_arm_is_the_best_column():
    assert best_fixed_arm(np.array([[1.0, 0.0, 0.4], [0.0, 1.0, 0.8]])) == (2, pytest.approx(1.2))
