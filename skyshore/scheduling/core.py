"""The scheduler without its surroundings: events in, actions out, no clock, no I/O.

The live loop and the simulator drive the same object; a log of its events replayed through a fresh core gives the
same actions again (`skyshore.scheduling.log`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from skyshore.domain.errors import NoFeasibleArm, QueueFull, SkyshoreError
from skyshore.domain.node import Arm
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.policies.constraints import slack_at_dispatch
from skyshore.policies.protocol import REFUSED, Arms, Context, Feedback, FewArms, Integers, Policy
from skyshore.policies.registry import create_policy
from skyshore.profiling.reward import RewardModel, RewardWeights
from skyshore.scheduling.actions import Action, Choice, Dispatch, Migrate, Reject, SaveState
from skyshore.scheduling.eligibility import capable_rows, open_rows, why_closed, why_incapable
from skyshore.scheduling.estimates import estimate_arms
from skyshore.scheduling.events import (
    Event,
    LinkChanged,
    NodeLost,
    NodeReported,
    PolicyChanged,
    TaskArrived,
    TaskFailed,
    TaskFinished,
    Tick,
)
from skyshore.scheduling.few_arms import FEW, EstimatedFew, capable_few, open_few
from skyshore.scheduling.fleet import Fleet
from skyshore.scheduling.tables import ArmRow, KindTable

MOST_IN_SLOT = 10_000


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """What a run of the core depends on besides its events."""

    policy: str = "least_loaded"
    seed: int = 0
    policy_settings: Mapping[str, Mapping[str, float | str | bool]] = field(default_factory=dict)
    """Settings by policy name."""
    grace_s: float = 5.0
    """A task unheard of this long after its deadline is taken for gone."""
    save_every_s: float = 5.0
    logged_arms: int = 32
    """Arms listed in a decision record; with more, those of the best scores."""
    weights: RewardWeights = field(default_factory=RewardWeights)


class SchedulerCore:
    """Holds the fleet and the policy in force."""

    def __init__(self, settings: CoreSettings | None = None) -> None:
        """Raises NotFound for an unknown policy."""
        self.settings = settings or CoreSettings()
        self.fleet = Fleet()
        self.policy_name = self.settings.policy
        self._changes = 0
        self._policy = self._create(self.policy_name)
        self._rewards = {kind: RewardModel(self.settings.weights) for kind in TaskKind}
        self._learned = False
        self._saved_at_s = self._expired_at_s = -np.inf
        self._slot: list[TaskArrived] = []

    @property
    def slot_s(self) -> float:
        """Arrivals are gathered this long under the policy in force; 0 places each at once."""
        return self._policy.slot_s

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    @property
    def tick_every_s(self) -> float:
        """How often the driver should send a Tick under the policy in force."""
        return min(self._policy.slot_s or 1.0, 1.0)

    def handle(self, event: Event) -> list[Action]:
        """Take in one event. Raises NotFound for a change to an unknown policy, ValueError for a bad snapshot."""
        actions: list[Action] = []
        match event:
            case TaskArrived():
                actions = self._arrive(event)
            case TaskFinished() | TaskFailed():
                self._end(event)
            case NodeReported():
                actions = _migrations(event.node.node_id, self.fleet.report(event.node, event.status))
            case NodeLost():
                actions = _migrations(event.node_id, self.fleet.lose(event.node_id))
            case LinkChanged():
                self.fleet.set_link(event.node_id, event.link)
            case PolicyChanged():
                actions = self._change_policy(event)
            case Tick():
                actions = self._tick(event)
        return actions

    # ------------------------------------------------------------------------------------------- placing

    def _arrive(self, event: TaskArrived) -> list[Action]:
        earlier = self.fleet.supersede(event.task.task_id)
        waited_s = event.at_s - earlier.context.now_s + earlier.context.waited_s if earlier else 0.0
        if self._policy.slot_s > 0 and event.attempt == 1:
            if len(self._slot) >= MOST_IN_SLOT:
                context = Context(event.at_s, event.task, event.profile)
                return [
                    self._reject(context, QueueFull(f"{MOST_IN_SLOT} tasks arrived in one slot", retry_after_s=1.0))
                ]
            self._slot.append(event)
            return []
        return [self._place(event, Context(event.at_s, event.task, event.profile, max(waited_s, 0.0)))]

    def _end_slot(self, at_s: float) -> list[Action]:
        """Place what the slot gathered, nearest deadline first; each sees the room that the ones before it took."""
        waiting = [
            (event, Context(at_s, event.task, event.profile, max(at_s - event.at_s, 0.0))) for event in self._slot
        ]
        self._slot.clear()
        waiting.sort(key=lambda pair: pair[1].remaining_s)
        options = [(context, arms) for event, context in waiting if (arms := self._options(event, context))]
        self._policy.plan([context for context, _ in options], [arms for _, arms in options])
        return [self._place(event, context) for event, context in waiting]

    def _options(self, event: TaskArrived, context: Context) -> Arms | None:
        found = self._open(event, context)
        if isinstance(found, SkyshoreError):
            return None
        table, rows, _ = found
        if isinstance(rows, list):
            return EstimatedFew(table, self.fleet.columns, rows, context).arms()
        return estimate_arms(table, self.fleet.columns, rows, context)

    def _open(
        self, event: TaskArrived, context: Context
    ) -> tuple[KindTable, list[ArmRow] | Integers, bool] | SkyshoreError:
        """The rows that may take a task now, and whether others are merely full; or why there are none."""
        table = self.fleet.table(event.task.kind)
        if table is None:
            return why_incapable(self.fleet, None, context)
        if len(table.rows) <= FEW:
            able = capable_few(table, context)
            few = open_few(able, event.avoid)
            if few:
                return table, few, len(few) < len(able)
        capable = capable_rows(table, context)
        if not len(capable):
            return why_incapable(self.fleet, table, context)
        rows = open_rows(self.fleet, table, capable, event.avoid)
        if not len(rows):
            return why_closed(self.fleet, table, capable, event.avoid)
        return table, rows, len(rows) < len(capable)

    def _place(self, event: TaskArrived, context: Context) -> Action:
        found = self._open(event, context)
        if isinstance(found, SkyshoreError):
            return self._reject(context, found)
        table, rows, some_full = found
        arms: Arms | FewArms
        if isinstance(rows, list):
            arms = EstimatedFew(table, self.fleet.columns, rows, context)
            decision = self._policy.select_few(context, arms)
        else:
            arms = estimate_arms(table, self.fleet.columns, rows, context)
            decision = self._policy.select(context, arms)
        choice = Choice(context, self.policy_name, arms, decision)
        if decision.index == REFUSED:
            refusal = f"policy '{self.policy_name}' refuses: {decision.reason}"
            passing = some_full or decision.passing
            error = QueueFull(refusal, retry_after_s=1.0) if passing else NoFeasibleArm(refusal)
            return Reject(choice, error, self.settings.logged_arms)
        return self._dispatch(choice, table.arms[arms.rows[decision.index]], decision.index, event.attempt)

    def _dispatch(self, choice: Choice, arm: Arm, index: int, attempt: int) -> Dispatch:
        assert choice.arms is not None, "there was something to choose from"
        estimate = choice.arms.estimate(index)
        node = self.fleet.node(arm.node_id)
        assert node is not None, "arms come from live nodes"
        self.fleet.reserve(choice.context, estimate, attempt, self.settings.grace_s)
        return Dispatch(choice, arm, node, estimate, attempt, self.settings.logged_arms)

    def _reject(self, context: Context, error: SkyshoreError) -> Reject:
        return Reject(Choice(context, self.policy_name), error, self.settings.logged_arms)

    # ------------------------------------------------------------------------------------------- learning

    def _end(self, event: TaskFinished | TaskFailed) -> None:
        outcome = event.outcome
        flight = self.fleet.end(outcome.task_id, outcome.arm_id)
        if flight is None or outcome.status is OutcomeStatus.CANCELLED:
            return  # expired or migrated meanwhile, or nothing learned about the arm
        if outcome.status is OutcomeStatus.REJECTED:
            self.fleet.mark_full(outcome.node_id)
            return
        if outcome.status is OutcomeStatus.OK:
            self.fleet.observe_link(outcome)
        slack = slack_at_dispatch(flight.arm, flight.context)
        reward = self._rewards[flight.context.task.kind].reward(outcome, slack)
        self._policy.update(Feedback(event.at_s, flight.context, flight.arm, outcome, reward))
        self._learned = True

    def _tick(self, event: Tick) -> list[Action]:
        actions = self._end_slot(event.at_s) if self._slot else []
        if event.at_s - self._expired_at_s >= 1.0:
            self._expired_at_s = event.at_s
            self.fleet.expire(event.at_s)
        if self._learned and (event.save or event.at_s - self._saved_at_s >= self.settings.save_every_s):
            self._saved_at_s = event.at_s
            actions += self._save()
        return actions

    def _save(self) -> list[Action]:
        self._learned = False
        snapshot = self._policy.snapshot()
        return [SaveState(self.policy_name, snapshot)] if snapshot else []

    # ------------------------------------------------------------------------------------------- policies

    def _change_policy(self, event: PolicyChanged) -> list[Action]:
        policy = self._create(event.policy)
        if event.snapshot:
            policy.restore(event.snapshot)
        saved = self._save() if self._learned else []
        self._changes += 1
        self._policy, self.policy_name = policy, event.policy
        return saved

    def _create(self, name: str) -> Policy:
        rng = np.random.default_rng([self.settings.seed, self._changes])
        return create_policy(name, rng, self.settings.policy_settings.get(name))


def _migrations(node_id: str, task_ids: list[str]) -> list[Action]:
    return [Migrate(task_id, node_id) for task_id in task_ids]
