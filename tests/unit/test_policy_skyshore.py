"""The `skyshore` policy: what it learns, what it risks, what it refuses, and that it beats what it should beat."""

import numpy as np
import pytest

from skyshore.domain.outcome import OutcomeStatus, WorkerOutcome
from skyshore.policies.own.skyshore import Skyshore
from skyshore.policies.protocol import REFUSED, Arms
from skyshore.rules.forecast import pairwise_sum
from skyshore.scheduling.core import CoreSettings
from tests.fakes.arms import arms_of, context, feedback
from tests.fakes.queue_model import QueueModel, digest_fleet, llm_arrivals
from tests.fakes.skyshore_rules import FlightTable, RiskCurve


def teach(policy: Skyshore, world: Arms, index: int, times: int, **measured: float) -> None:
    """Outcomes of one arm; `slowness` and `joules` are true over stated."""
    for step in range(times):
        ctx = context(float(step), task_id=f"t{step}", deadline_s=60.0)
        arm = world.estimate(index)
        service_s = arm.service_s * measured.get("slowness", 1.0)
        worker = WorkerOutcome(compute_s=service_s, inference_joules=arm.joules * measured.get("joules", 1.0))
        outcome = feedback(
            ctx,
            world,
            index,
            latency_s=service_s + arm.transmission_s + arm.queue_s,
            quality=measured.get("quality", 0.0),
            transmission_joules=0.0,
            worker=worker,
        )
        policy.update(outcome)


def pick(policy: Skyshore, world: Arms, **task: float) -> int:
    return policy.select(context(100.0, **task), world).index


def test_a_new_arm_is_believed():
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(3, service_s=[1.0, 1.0, 4.0], joules=[50.0, 20.0, 5.0])
    assert pick(policy, world, deadline_s=60.0) == 2
    assert pick(policy, world, deadline_s=3.0) == 1


def test_an_arm_slower_than_it_says_loses_tight_tasks_only():
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, service_s=[1.0, 1.0], joules=[10.0, 30.0])
    assert pick(policy, world, deadline_s=3.0) == 0
    teach(policy, world, 0, 60, slowness=4.0)
    teach(policy, world, 1, 60)
    assert pick(policy, world, deadline_s=3.0) == 1
    assert pick(policy, world, deadline_s=60.0) == 0


def test_measured_joules_count_not_stated_ones():
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, joules=[10.0, 12.0])
    teach(policy, world, 0, 60, joules=3.0)
    teach(policy, world, 1, 60)
    assert pick(policy, world, deadline_s=60.0) == 1


def test_an_arm_that_states_no_power_is_measured():
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, joules=[0.0, 10.0], service_s=1.0)
    for step in range(60):
        measured = WorkerOutcome(compute_s=1.0, inference_joules=80.0)
        policy.update(feedback(context(float(step)), world, 0, worker=measured))
    teach(policy, world, 1, 60)
    assert pick(policy, world, deadline_s=60.0) == 1


def test_an_arm_whose_answers_fall_short_of_the_floor_comes_last():
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, joules=[10.0, 40.0], quality=[0.7, 0.7])
    assert pick(policy, world, min_quality=0.65, deadline_s=60.0) == 0
    teach(policy, world, 0, 80, quality=0.5)
    teach(policy, world, 1, 80, quality=0.7)
    assert pick(policy, world, min_quality=0.65, deadline_s=60.0) == 1
    assert pick(policy, world, min_quality=0.0, deadline_s=60.0) == 0


def test_a_failing_arm_is_avoided_for_a_while():
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, joules=[10.0, 15.0])
    teach(policy, world, 0, 20)
    teach(policy, world, 1, 20)
    for _ in range(3):
        policy.update(feedback(context(100.0), world, 0, status=OutcomeStatus.FAILED))
    assert policy.select(context(101.0, deadline_s=60.0), world).index == 1
    assert policy.select(context(500.0, deadline_s=60.0), world).index == 0


def test_an_arm_known_only_by_missed_deadlines_is_found_out():
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, service_s=[1.0, 2.0], joules=[10.0, 30.0])
    teach(policy, world, 1, 40)
    for step in range(40):
        cut_off = feedback(
            context(float(step), deadline_s=4.0), world, 0, status=OutcomeStatus.DEADLINE_EXCEEDED, latency_s=4.0
        )
        policy.update(cut_off)
    assert pick(policy, world, deadline_s=4.0) == 1


def test_a_task_without_a_chance_is_refused_and_one_in_twenty_is_tried():
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(1, service_s=10.0)
    answers = [policy.select(context(deadline_s=1.0), world) for _ in range(400)]
    refused = sum(answer.index == REFUSED for answer in answers)
    assert 350 < refused < 400
    assert {answer.propensity for answer in answers} == {0.05, 0.95}
    assert pick(policy, world, deadline_s=60.0) == 0


def test_stated_chances_come_true_also_under_censoring():
    """Scores cut off at what a task could spare: the curve still finds the true share beyond each point."""
    rng, risk = np.random.default_rng(1), RiskCurve()
    for _ in range(4000):
        score, spare = rng.normal(0.5, 1.5), rng.uniform(-1.0, 5.0)
        risk.observe(min(score, spare), cut_off=score > spare)
    points = np.array([-1.0, 0.0, 1.0, 2.0, 3.0])
    truth = [np.mean(rng.normal(0.5, 1.5, 100_000) > point) for point in points]
    np.testing.assert_allclose(risk.chance(points), truth, atol=0.07)
    assert np.all(np.diff(risk.chances) <= 0)


def test_the_multiplier_rises_with_misses_and_falls_without():
    policy = Skyshore(np.random.default_rng(0), miss_share=0.05, least_multiplier=2.0, largest_multiplier=6.0)
    world = arms_of(1)

    def multiplier(steps: int, missed_every: int) -> float:
        for step in range(steps):
            missed = missed_every and step % missed_every == 0
            policy.update(feedback(context(), world, 0, latency_s=99.0 if missed else 1.0))
        return policy.select(context(), world).features[3]

    assert multiplier(2000, 0) == pytest.approx(2.0)
    assert multiplier(2000, 5) == pytest.approx(6.0, rel=0.2)


def place(policy: Skyshore, world: Arms, at_s: float, task_id: str, deadline_s: float) -> int:
    return policy.select(context(at_s, task_id=task_id, deadline_s=deadline_s), world).index


def test_a_task_joins_a_node_that_works_anyway_rather_than_wake_another():
    """Alone, both nodes cost the same; in company, half is taken to be shared."""
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, service_s=2.0, joules=[10.0, 10.1], slots=8.0)
    assert place(policy, world, 1.0, "first", 60.0) == 0
    swapped = arms_of(2, table=world.table, service_s=2.0, joules=[10.1, 10.0], slots=8.0, load=[1.0, 0.0])
    assert place(policy, swapped, 1.1, "second", 60.0) == 0
    assert place(policy, swapped, 30.0, "when the first is over", 60.0) == 1


def test_a_newcomer_does_not_break_the_deadlines_of_those_before_it():
    """Ten tasks that have just enough time are on node 0; one more has all the time in the world, but they have not."""
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, service_s=2.0, joules=[10.0, 11.0], slots=8.0)
    for number in range(10):
        busy = arms_of(1, table=world.table, rows=[0], service_s=2.0, joules=10.0, slots=8.0, load=float(number))
        assert place(policy, busy, 1.0, f"tight{number}", 4.5) == 0
    crowded = arms_of(2, table=world.table, service_s=2.0, joules=[10.0, 30.0], slots=8.0, load=[7.0, 0.0])
    assert place(policy, crowded, 1.1, "patient", 60.0) == 1


def test_how_many_others_were_there_is_a_mean_over_the_stay():
    flights = FlightTable()
    task = {"ends_at_s": 9.0, "deadline_at_s": 20.0, "sigma_s": 1.0, "delay_s": 0.1}
    flights.add(3, 1, 0.0, **task)
    flights.add(3, 2, 4.0, **task)
    assert flights.drop(1, 10.0) == pytest.approx(0.6)
    assert flights.drop(2, 14.0) == pytest.approx(0.6)
    assert flights.drop(2, 15.0) is None
    assert (flights.node(3).ends_at_s, flights.node(3).broken) == (0.0, 0.0)


def test_a_task_that_nobody_reported_is_dropped():
    flights = FlightTable()
    task = {"sigma_s": 0.1, "delay_s": 1.0}
    flights.add(0, 1, 0.0, ends_at_s=2.0, deadline_at_s=2.0, **task)
    assert flights.node(0).broken > 0.4
    flights.add(0, 2, 100.0, ends_at_s=102.0, deadline_at_s=900.0, **task)
    assert flights.drop(1, 101.0) is None
    assert flights.node(0).broken < 0.01


def test_a_number_that_is_used_again_does_not_stand_for_the_task_before():
    flights = FlightTable()
    flights.add(0, 1, 0.0, deadline_at_s=50.0)
    earlier = flights.state.flights[flights.state.nodes[0].first]
    earlier.serial = 99  # the table looks for serial 1
    assert flights.drop(1, 1.0) is None
    flights.add(2, 1, 2.0, deadline_at_s=60.0)
    assert flights.drop(1, 3.0) is not None
    assert (flights.node(0).tasks, flights.node(2).tasks) == (1, 0)


def test_a_full_table_drops_those_gone_or_else_the_one_due_first():
    flights = FlightTable()
    for task in range(32):
        flights.add(task % 4, task, 0.0, deadline_at_s=100.0 - task)
    flights.add(0, 40, 1.0, deadline_at_s=100.0)  # no row is left, and none is gone: 31 is due first
    assert flights.drop(31, 2.0) is None
    assert [flights.node(number).tasks for number in range(4)] == [9, 8, 8, 7]
    flights.add(0, 41, 3.0, deadline_at_s=100.0)
    flights.add(1, 42, 96.0, deadline_at_s=200.0)  # by now those due before 91 s are gone, on every node
    assert flights.drop(10, 96.0) is None
    assert flights.drop(9, 96.0) is not None


@pytest.mark.parametrize("count", [1, 7, 8, 9, 100, 128, 129, 1000, 4097])
def test_sums_are_those_of_numpy_to_the_bit(count):
    """Before the first answer the price of a miss is a mean of forecasts; recorded logs have it from numpy."""
    values = np.random.default_rng(count).uniform(0.0, 50.0, count)
    assert pairwise_sum(values.tolist(), count) == float(values.sum())


def test_a_snapshot_holds_the_classes_beyond_the_bound_as_one():
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2)
    for number in range(70):
        policy.update(feedback(context(service_class=f"class {number}"), world, 0))
    saved, again = policy.snapshot(), Skyshore(np.random.default_rng(0))
    again.restore(saved)
    assert again.snapshot() == saved
    assert b'"class 62"' in saved
    assert b'"(others)"' in saved
    assert b'"class 63"' not in saved


def test_outliers_neither_make_an_arm_a_lottery_nor_faster_than_light():
    """A run of answers far shorter, then far longer than predicted, once made σ of an arm a hundred."""
    policy, world = Skyshore(np.random.default_rng(0)), arms_of(2, service_s=[1.0, 1.0], joules=[10.0, 30.0])
    for _ in range(5):
        teach(policy, world, 0, 10, slowness=0.02)
        teach(policy, world, 0, 10, slowness=8.0)
    teach(policy, world, 0, 40)
    teach(policy, world, 1, 40)
    assert pick(policy, world, deadline_s=12.0) == 0


@pytest.mark.parametrize(("rate_per_s", "share"), [(2.25, 0.95), (4.5, 0.9), (6.75, 0.9)])
def test_fewer_joules_per_met_deadline_at_better_attainment(rate_per_s, share):
    """At half load, saturation and half as much again, in a world without batching; docs/papers.md has the others."""

    def result(policy: str) -> tuple[float, float]:
        runs = []
        for seed in range(3):
            model = QueueModel(digest_fleet(), CoreSettings(policy=policy), seed=seed)
            runs.append(model.play(llm_arrivals(rate_per_s, 400, seed=seed)))
        return np.mean([run.attainment for run in runs]), np.mean([run.joules_per_met for run in runs])

    attainment, joules = result("skyshore")
    for rival in ("least_loaded", "cs_ucb", "cs_ucb.filter_only"):
        theirs = result(rival)
        assert attainment >= theirs[0], rival
        assert joules <= share * theirs[1], rival
