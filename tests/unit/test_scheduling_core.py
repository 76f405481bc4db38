"""The core's promises: what may be chosen, what is refused and how, and that no room is ever lost or given twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.errors import NodeUnavailable, NoFeasibleArm, NotFound, QueueFull
from skyshore.domain.node import Link, Tier
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import Task
from skyshore.scheduling.actions import Action, Dispatch, Migrate, Reject, SaveState
from skyshore.scheduling.core import CoreSettings, SchedulerCore
from skyshore.scheduling.events import (
    LinkChanged,
    NodeLost,
    NodeReported,
    PolicyChanged,
    TaskArrived,
    TaskFailed,
    TaskFinished,
    Tick,
)
from tests.fakes.small_fleet import (
    LLM_PROFILE,
    VIDEO_PROFILE,
    llm_arm,
    llm_task,
    node,
    outcome,
    status,
    video_arm,
    video_task,
)


def core_with(*node_ids: str, policy: str = "least_loaded", capacity: int = 2) -> SchedulerCore:
    core = SchedulerCore(CoreSettings(policy=policy))
    for node_id in node_ids:
        tier = Tier.CLOUD if node_id.startswith("cloud") else Tier.EDGE
        core.handle(NodeReported(0.0, node(node_id, tier=tier), status(node_id, capacity=capacity)))
    return core


def place(core: SchedulerCore, task: Task | str, at_s: float = 1.0, **changes: object) -> Action:
    task = llm_task(task) if isinstance(task, str) else task
    profile = LLM_PROFILE if task.kind.value == "llm" else VIDEO_PROFILE
    (action,) = core.handle(TaskArrived(at_s, task, profile, **changes))  # type: ignore[arg-type]
    return action


def chosen(action: Action) -> str:
    assert isinstance(action, Dispatch), action
    return action.placement.arm.node_id


def error(action: Action) -> Exception:
    assert isinstance(action, Reject), action
    return action.error


def finish(core: SchedulerCore, action: Action, at_s: float = 2.0, **changes: object) -> list[Action]:
    assert isinstance(action, Dispatch)
    arm = action.placement.arm
    return core.handle(TaskFinished(at_s, outcome(action.placement.task_id, arm.arm_id, arm.node_id, **changes)))


def test_placed_tasks_count_before_the_node_says_so():
    core = core_with("a", "b", capacity=4)
    assert {chosen(place(core, "t1")), chosen(place(core, "t2"))} == {"a", "b"}


def test_an_empty_fleet_is_unavailable_and_a_missing_kind_is_infeasible():
    assert isinstance(error(place(core_with(), "t")), NodeUnavailable)
    core = SchedulerCore()
    core.handle(NodeReported(0.0, node("a", llm_arm("a")), status("a")))
    assert isinstance(error(place(core, video_task())), NoFeasibleArm)


@pytest.mark.parametrize(
    ("task", "param"),
    [
        (llm_task(model="gpt-9"), "model"),
        (llm_task(min_quality=0.9), "min_quality"),
    ],
)
def test_a_demand_nothing_meets_names_the_demand(task, param):
    refused = error(place(core_with("a"), task))
    assert isinstance(refused, NoFeasibleArm)
    assert refused.param == param


def test_a_prompt_longer_than_every_context_is_infeasible():
    core = SchedulerCore()
    core.handle(NodeReported(0.0, node("a", llm_arm("a", context_tokens=149)), status("a")))
    assert isinstance(error(place(core, "t")), NoFeasibleArm)
    core.handle(NodeReported(0.0, node("b", llm_arm("b", context_tokens=150)), status("b")))
    assert chosen(place(core, "t")) == "b"


def test_a_full_fleet_says_when_to_come_back():
    core = core_with("a", capacity=2)
    place(core, "t1")
    place(core, "t2")
    refused = error(place(core, "t3"))
    assert isinstance(refused, QueueFull)
    assert refused.retry_after_s is not None
    assert 0.5 <= refused.retry_after_s <= 30.0


def test_an_ended_task_releases_its_slot_whatever_its_end():
    for end in OutcomeStatus:
        if end is OutcomeStatus.REJECTED:
            continue
        core = core_with("a", capacity=1)
        action = place(core, "t1")
        finish(core, action, status=end)
        assert chosen(place(core, "t2")) == "a", end


def test_a_node_that_turned_a_task_away_is_full_until_it_reports_again():
    core = core_with("a", capacity=4)
    action = place(core, "t1")
    core.handle(TaskFailed(2.0, outcome("t1", "a/smollm2", "a", status=OutcomeStatus.REJECTED)))
    assert isinstance(action, Dispatch)
    assert isinstance(error(place(core, "t2")), QueueFull)
    core.handle(NodeReported(3.0, node("a"), status("a", capacity=4)))
    assert chosen(place(core, "t3")) == "a"


def test_a_duplicate_outcome_releases_a_slot_once():
    core = core_with("a", capacity=2)
    first = place(core, "t1")
    place(core, "t2")
    finish(core, first)
    finish(core, first)
    place(core, "t3")
    assert isinstance(error(place(core, "t4")), QueueFull)


def test_a_forgotten_task_expires_after_deadline_and_grace():
    core = core_with("a", capacity=1)
    place(core, llm_task("t1", deadline_s=10.0), at_s=1.0)
    core.handle(Tick(15.9))
    assert isinstance(error(place(core, "t2", at_s=15.9)), QueueFull)
    core.handle(Tick(17.0))
    assert chosen(place(core, "t3", at_s=16.1)) == "a"


def test_a_second_attempt_avoids_the_node_and_holds_one_slot():
    core = core_with("a", "b", capacity=1)
    first = chosen(place(core, "t1"))
    second = chosen(place(core, "t1", attempt=2, avoid=(first,)))
    assert second != first
    assert chosen(place(core, "t2")) == first


def test_a_late_failure_of_a_first_attempt_does_not_free_the_second():
    core = core_with("a", "b", capacity=1)
    first = place(core, "t1")
    second = place(core, "t1", attempt=2, avoid=(chosen(first),))
    finish(core, first, status=OutcomeStatus.FAILED)
    assert core.fleet.in_flight["t1"].estimate.node_id == chosen(second)


def test_when_every_capable_node_is_avoided_or_draining_the_fleet_is_unavailable():
    core = core_with("a")
    assert isinstance(error(place(core, "t", avoid=("a",))), NodeUnavailable)
    core.handle(NodeReported(0.0, node("a"), status("a", draining=True)))
    assert isinstance(error(place(core, "t")), NodeUnavailable)


def test_a_lost_node_hands_its_tasks_back_and_gets_no_more():
    core = core_with("a", "b")
    homes = {f"t{i}": chosen(place(core, f"t{i}")) for i in range(4)}
    actions = core.handle(NodeLost(2.0, "a"))
    assert actions == [Migrate(task_id, "a") for task_id, home in sorted(homes.items()) if home == "a"]
    assert isinstance(error(place(core, "t9")), QueueFull)
    assert core.handle(NodeLost(2.0, "a")) == []


def test_a_restarted_node_starts_empty():
    core = core_with("a", capacity=1)
    place(core, "t1")
    reborn = node("a", incarnation="2")
    assert core.handle(NodeReported(2.0, reborn, status("a", capacity=1))) == [Migrate("t1", "a")]
    assert chosen(place(core, "t2")) == "a"


def test_tasks_of_other_callers_take_room_too():
    core = core_with("a", capacity=4)
    core.handle(NodeReported(1.0, node("a"), status("a", capacity=4, running=2, queued=1)))
    assert chosen(place(core, "t1")) == "a"
    assert isinstance(error(place(core, "t2")), QueueFull)


def test_a_stale_heartbeat_does_not_count_our_own_tasks_twice():
    core = core_with("a", capacity=4)
    actions = [place(core, f"t{i}") for i in range(4)]
    for action in actions:
        finish(core, action)
    core.handle(NodeReported(2.5, node("a"), status("a", capacity=4, running=4)))
    assert chosen(place(core, "next")) == "a"


def test_estimates_add_up_from_speed_link_and_queue():
    core = core_with("a", capacity=8)
    core.handle(LinkChanged(0.5, "a", Link(up_bytes_per_s=1000.0, rtt_s=0.1, joules_per_byte=0.01)))
    alone = place(core, "t1")
    assert isinstance(alone, Dispatch)
    # 100 / 500 + 50 / 50 s of work, 500 bytes at 1000 B/s and a round trip of 0.1 s
    assert alone.placement.estimated_latency_s == pytest.approx(1.2 + 0.5 + 0.1)
    place(core, "t2")
    third = place(core, "t3")
    assert isinstance(third, Dispatch)
    # both slots taken: the first of two ends after 1.2 / 2 s on average
    assert third.placement.estimated_latency_s == pytest.approx(1.8 + 0.6)
    assert core.fleet.in_flight["t1"].estimate.joules == pytest.approx(20.0 * 1.2 + 0.01 * 500)


def test_video_estimates_use_stride_and_bytes_per_frame():
    core = SchedulerCore()
    core.handle(NodeReported(0.0, node("a", video_arm("a", frame_stride=4)), status("a")))
    core.handle(LinkChanged(0.5, "a", Link(up_bytes_per_s=160_000.0)))
    action = place(core, video_task())
    assert isinstance(action, Dispatch)
    assert action.placement.estimated_latency_s == pytest.approx(8 * 0.03 + 8 * 20_000 / 160_000)


def test_a_link_nobody_measures_is_learned_from_outcomes():
    core = core_with("a")
    for i in range(30):
        action = place(core, video_task(f"v{i}"))
        finish(core, action, latency_s=2.9, up_bytes=1_000_000)
    action = place(core, video_task("last"))
    assert isinstance(action, Dispatch)
    assert core.fleet.in_flight["last"].estimate.up_bytes_per_s == pytest.approx(500_000, rel=0.05)


def test_policies_change_without_losing_a_task():
    core = core_with("a", "cloud", capacity=1)
    first = place(core, "t1")
    core.handle(PolicyChanged(1.5, "cloud_only"))
    finish(core, first)
    assert chosen(place(core, "t2")) == "cloud"
    assert isinstance(error(place(core, "t3")), QueueFull)
    with pytest.raises(NotFound, match="least_loaded"):
        core.handle(PolicyChanged(2.0, "no_such"))
    assert core.policy_name == "cloud_only"


def test_a_tier_that_does_not_exist_is_infeasible_not_full():
    core = core_with("a", policy="cloud_only")
    assert isinstance(error(place(core, "t")), NoFeasibleArm)


def test_the_record_explains_the_choice():
    action = place(core_with("a", "b"), "t1")
    assert isinstance(action, Dispatch)
    record = action.record
    assert record.arm_ids == ("a/smollm2", "b/smollm2")
    assert record.scores == (0.0, 0.0)
    assert record.propensity == 0.5
    assert record.chosen in record.arm_ids


def test_stateless_policies_save_nothing():
    core = core_with("a")
    finish(core, place(core, "t1"))
    assert not [action for action in core.handle(Tick(100.0)) if isinstance(action, SaveState)]


steps = st.lists(
    st.tuples(st.sampled_from(["place", "finish", "lose", "report", "again", "tick"]), st.integers(0, 5)),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_room_is_never_lost_nor_overdrawn(history):
    """After any history every node holds exactly the tasks in flight on it, and never more than its capacity."""
    core = core_with("n0", "n1", "n2", capacity=3)
    placed: list[Dispatch] = []
    for at, (step, which) in enumerate(history):
        name = f"n{which % 3}"
        match step:
            case "place" | "again":
                action = place(core, f"t{which if step == 'again' else at + 10}", at_s=float(at))
                placed += [action] if isinstance(action, Dispatch) else []
            case "finish" if placed:
                finish(core, placed.pop(which % len(placed)), at_s=float(at))
            case "lose":
                core.handle(NodeLost(float(at), name))
            case "report":
                core.handle(NodeReported(float(at), node(name), status(name, capacity=3)))
            case "tick":
                core.handle(Tick(float(at * 20)))
        for node_id in ("n0", "n1", "n2"):
            placed_here = [each.estimate for each in core.fleet.in_flight.values() if each.estimate.node_id == node_id]
            if core.fleet.node(node_id) is None:
                assert not placed_here
                continue
            record = core.fleet.record(node_id)
            assert record.own == len(placed_here) <= 3
            work_s = sum(estimate.service_s for estimate in placed_here)
            assert record.backlog_s == pytest.approx(work_s, abs=1e-9)
