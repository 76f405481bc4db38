"""The simulator and the live scheduler decide alike: told the same events, they give the same decision records."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import fleet as fleet_kernels
from simulator import kernel as kernels
from simulator.records import ATTEMPTS
from simulator.simulation import Simulation
from skyshore.domain.node import Link, NodeStatus
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.placement import DecisionRecord
from skyshore.rules.records import fields_of
from skyshore.scheduling.actions import Dispatch, Reject
from skyshore.scheduling.core import CoreSettings, SchedulerCore
from skyshore.scheduling.events import (
    Event,
    LinkChanged,
    NodeLost,
    NodeReported,
    TaskArrived,
    TaskFailed,
    TaskFinished,
    Tick,
)
from skyshore.scheduling.log import EventEncoder, encode_dispatch, encode_header, replay
from skyshore.scheduling.logged_context import decode_context
from tests.fakes.random_fleets import arrivals_of, faults, fleets, made, plan_faults, requests
from tests.fakes.simulated import chat, outcomes_of, plan, simulation


class Listener:
    """Writes down what the scheduler of a simulation is told, as events of a live core.

    In plain Python the kernels call each other by name, so a test can listen to them.
    """

    def __init__(self, run: Simulation, patch: pytest.MonkeyPatch) -> None:
        self.run, self.events = run, list[Event]()
        policy_plan = run.policy.plan

        def plan_slot(waiting: Any) -> None:
            self.events.append(Tick(run.now_s))
            policy_plan(waiting)

        patch.setattr(run.policy, "plan", plan_slot)
        self._listen(patch, fleet_kernels, "note_status", self._report)
        self._listen(patch, fleet_kernels, "measured_link", self._measure)
        self._listen(patch, fleet_kernels, "leave", self._leave)
        self._listen(patch, kernels, "note_wait", self._arrive)
        self._listen(patch, kernels, "receive_outcome", self._end)

    @staticmethod
    def _listen(patch: pytest.MonkeyPatch, module: Any, name: str, note: Callable[..., None]) -> None:
        kernel = getattr(module, name)

        def noted(*arguments: Any) -> Any:
            note(*arguments)
            return kernel(*arguments)

        patch.setattr(module, name, noted)

    def _number(self, record: Any) -> int:
        return next(number for number, node in enumerate(self.run.view.nodes) if node is record)

    def _report(self, record: Any, tasks: float, capacity: float, kv_used: float, draining: bool) -> None:
        node = self.run.fleet.nodes[self._number(record)]
        status = NodeStatus(node.node_id, int(tasks), 0, int(capacity), kv_used, draining)
        self.events.append(NodeReported(self.run.now_s, node, status))

    def _measure(self, record: Any, bytes_per_s: float, rtt_s: float, joules_per_byte: float) -> None:
        name = self.run.fleet.nodes[self._number(record)].node_id
        link = Link(up_bytes_per_s=bytes_per_s, rtt_s=rtt_s, joules_per_byte=joules_per_byte)
        self.events.append(LinkChanged(self.run.now_s, name, link))

    def _leave(self, record: Any) -> None:
        self.events.append(NodeLost(self.run.now_s, self.run.fleet.nodes[self._number(record)].node_id))

    def _arrive(self, _run: Any, _view: Any, task: Any) -> None:
        request = self.run.policy._request(task.number)
        avoid = tuple(self.run.fleet.nodes[number].node_id for number in task.tried[: task.tries])
        self.events.append(TaskArrived(self.run.now_s, request.task, request.profile, task.attempt, avoid))

    def _end(self, run: Any, _view: Any, _state: Any, number: int, index: int) -> None:
        attempt = fields_of(run.attempts[number * ATTEMPTS + index])
        request = self.run.policy._request(attempt["serial"] - 1)
        outcome = self.run.outcomes.of_attempt(attempt, request.arrival)
        kind = TaskFinished if outcome.status is OutcomeStatus.OK else TaskFailed
        self.events.append(kind(self.run.now_s, outcome))


def live_records(core: SchedulerCore, events: list[Event]) -> list[DecisionRecord]:
    actions = [action for event in events for action in core.handle(event)]
    return [action.record for action in actions if isinstance(action, Dispatch | Reject)]


@pytest.mark.parametrize("policy", ["least_loaded", "cs_ucb", "cs_ucb.slotted", "linucb", "skyshore"])
@settings(max_examples=10, deadline=None)
@given(fleets, st.integers(0, 9), st.lists(requests, max_size=40), st.lists(faults, max_size=3))
def test_a_live_core_told_the_same_decides_the_same(policy, nodes, seed, drawn, broken):
    simulated: list[DecisionRecord] = []
    run = made(nodes, policy, seed, on_decision=simulated.append)
    plan_faults(run, broken)
    with pytest.MonkeyPatch.context() as patch:
        listener = Listener(run, patch)
        outcomes_of(run, arrivals_of(drawn))
    core = SchedulerCore(CoreSettings(policy=policy, seed=seed))
    pairs = zip(live_records(core, listener.events), simulated, strict=True)
    assert next(((live, other) for live, other in pairs if live != other), None) is None


def test_the_log_of_a_simulation_replays_its_placements():
    simulated: list[DecisionRecord] = []
    run = simulation(plan("a"), plan("bb"), policy="cs_ucb", seed=4, on_decision=simulated.append)
    run.at(2.0, lambda: run.crash("a"))
    run.at(6.0, lambda: run.boot("a"))
    with pytest.MonkeyPatch.context() as patch:
        listener = Listener(run, patch)
        outcomes_of(run, [chat(0.1 * index, f"r{index}", output=20 + index % 7) for index in range(100)])
    encoder = EventEncoder()
    lines = [encode_header(CoreSettings(policy="cs_ucb", seed=4)), *map(encoder.encode, listener.events)]
    replayed = list(replay(lines))
    assert [action.record for action in replayed] == [record for record in simulated if record.chosen]
    assert {record.chosen for record in simulated} == {"a/m", "bb/m"}
    assert len([encode_dispatch(action) for action in replayed]) > 100, "some were placed again"


def test_a_decision_is_shown_before_the_end_of_its_task():
    seen: list[tuple[str, str]] = []
    run = simulation(
        plan("a"), policy="cloud_only", on_decision=lambda record: seen.append(("decided", record.task_id))
    )
    run.run([chat(0.0, "refused"), chat(1.0, "again")], lambda outcome: seen.append(("ended", outcome.task_id)))
    names = ("refused", "again")
    assert seen == [(what, name) for name in names for what in ("decided", "ended")], "the table of decisions needs it"


def test_a_decision_shows_the_room_before_its_own_reservation():
    shown: list[DecisionRecord] = []
    simulation(plan("a"), policy="power_of_two", on_decision=shown.append).run([chat()], lambda _: None)
    (record,) = shown
    _, arms = decode_context(record.context, record.arm_ids, record.task_id, record.service_class, record.decided_at_s)
    assert arms.load.tolist() == [0.0]
