"""The pure scheduler core: takes events, returns actions; reads no clock and does no I/O.

The live loop drives it. A log of its events replayed through a fresh core gives the same actions again
(`skyshore.scheduling.log`). The simulator calls the kernels of the same rules (`skyshore.rules`) without a core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from skyshore.domain.errors import NoFeasibleArm, QueueFull, SkyshoreError
from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.policies.kernel_policy import KernelPolicy, demand_values
from skyshore.policies.protocol import REFUSED, Arms, Context, Feedback, Policy, SavedPolicy, SlottedPolicy, slot_s
from skyshore.policies.registry import create_policy
from skyshore.rules.choose import learn_attempt
from skyshore.rules.eligible import list_options
from skyshore.rules.place import MOST_IN_SLOT, offer_task, place_task, plan_tasks
from skyshore.rules.records import DEMAND, MOST_TRIED, Record, get, in_form, put, rows, values_of
from skyshore.rules.reserve import GRACE_S
from skyshore.rules.reward import RewardWeights, blank_rewards, note_reward
from skyshore.scheduling.actions import LOGGED_ARMS, Action, Choice, Dispatch, Migrate, Reject, SaveState, shown_arms
from skyshore.scheduling.eligibility import why_none
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
from skyshore.scheduling.fleet import Fleet, OpenAttempt
from skyshore.scheduling.tables import SHOWN, KindTable

MANY_ARMS = 200
"""From so many arms on, machine code is worth its memory (about 100 MB). It is faster from about 20 on."""


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """The settings of a core: with the events, they determine all actions."""

    policy: str = "least_loaded"
    seed: int = 0
    policy_settings: Mapping[str, Mapping[str, float | str | bool]] = field(default_factory=dict)
    """Settings by policy name."""
    grace_s: float = GRACE_S
    """Seconds after its deadline at which a task without a report is dropped."""
    save_every_s: float = 5.0
    logged_arms: int = LOGGED_ARMS
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
        self._rewards = blank_rewards(self.settings.weights)
        self._demands = rows(DEMAND, 1, arrays=False)
        self._task_room = 0
        self._many_arms: float = math.inf
        self._learned = False
        self._saved_at_s = self._expired_at_s = -np.inf
        self._slot: list[TaskArrived] = []

    @property
    def slot_s(self) -> float:
        """Arrivals are gathered this long under the policy in force; 0 places each at once."""
        return slot_s(self._policy)

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    @property
    def demand(self) -> Record:
        """The task that was decided on last."""
        return self._demands[0]

    @property
    def tick_every_s(self) -> float:
        """How often the driver should send a Tick under the policy in force."""
        return min(self.slot_s or 1.0, 1.0)

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
        if self.slot_s > 0 and event.attempt == 1:
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
        if isinstance(self._policy, KernelPolicy):
            self._plan_in_kernel(self._policy, waiting)
        elif isinstance(self._policy, SlottedPolicy):
            options = [(context, arms) for event, context in waiting if (arms := self._options(event, context))]
            self._policy.plan([context for context, _ in options], [arms for _, arms in options])
        return [self._place(event, context) for event, context in waiting]

    def _plan_in_kernel(self, policy: KernelPolicy, waiting: list[tuple[TaskArrived, Context]]) -> None:
        if not policy.plans_slots:
            return
        policy.make_slot_room(len(waiting))
        fleet = self.fleet
        for event, context in waiting:
            table = self._table(event.task.kind)
            if table is not None:
                demand = self._demand(event, context, table)
                fleet.kernel(offer_task)(policy.state, demand, fleet.nodes, fleet.arms, fleet.order, fleet.options)
        fleet.kernel(plan_tasks)(policy.state)

    def _options(self, event: TaskArrived, context: Context) -> Arms | None:
        table = self._table(event.task.kind)
        if table is None:
            return None
        fleet = self.fleet
        demand = self._demand(event, context, table)
        fleet.kernel(list_options)(demand, fleet.nodes, fleet.arms, fleet.order, fleet.options)
        count = self._decided("count")
        return table.options(fleet.options, count).copy() if count else None

    def _place(self, event: TaskArrived, context: Context) -> Action:
        fleet, table = self.fleet, self._table(event.task.kind)
        if table is None:
            return self._reject(context, why_none(fleet, None, context, event.avoid, capable=0))
        demand, decision = self._demand(event, context, table), None
        if isinstance(self._policy, KernelPolicy):
            rule = fleet.kernel(place_task)
            rule(self._policy.state, demand, fleet.nodes, fleet.arms, fleet.order, fleet.options)
            count = self._decided("count")
            if count:
                decision = self._policy.decision(fleet.options, count)
        else:
            fleet.kernel(list_options)(demand, fleet.nodes, fleet.arms, fleet.order, fleet.options)
            count = self._decided("count")
            if count:
                decision = self._policy.select(context, table.options(fleet.options, count))
        if decision is None:
            capable = self._decided("capable")
            return self._reject(context, why_none(fleet, table, context, event.avoid, capable=capable))
        shown = shown_arms(table, fleet.options, count, decision, self.settings.logged_arms)
        choice = Choice(context, self.policy_name, decision, shown)
        if decision.index == REFUSED:
            transient = decision.transient or count < self._decided("capable")
            return Reject(choice, _refusal(self.policy_name, decision.reason, transient=transient))
        return self._dispatch(choice, table, demand, event.attempt)

    def _dispatch(self, choice: Choice, table: KindTable, demand: Record, attempt: int) -> Dispatch:
        decision = choice.decision
        assert decision is not None, "there was something to choose from"
        fleet = self.fleet
        put(fleet.options.decision[0], {"index": decision.index})
        chosen = values_of(fleet.options.estimates[decision.index], SHOWN)
        estimate = table.estimate(*chosen)
        node = fleet.node(estimate.node_id)
        assert node is not None, "arms come from live nodes"
        fleet.open_attempt(choice.context, estimate, demand, self.settings.grace_s)
        return Dispatch(choice, table.arms[chosen[0]], node, estimate, attempt)

    def _reject(self, context: Context, error: SkyshoreError) -> Reject:
        return Reject(Choice(context, self.policy_name), error)

    def _decided(self, name: str) -> int:
        return int(get(self.fleet.options.decision[0], name))

    def _table(self, kind: TaskKind) -> KindTable | None:
        fleet = self.fleet
        if fleet.changed:
            fleet.refresh(self._policy, arrays=fleet.arm_count >= self._many_arms)
            self._demands = rows(DEMAND, 1, arrays=fleet.arrays)
            self._rewards = in_form(self._rewards, arrays=fleet.arrays)
        return fleet.tables.get(kind)

    def _demand(self, event: TaskArrived, context: Context, table: KindTable) -> Record:
        fleet, demand = self.fleet, self._demands[0]
        put(demand, demand_values(context))
        number, serial = fleet.task_number(context, self.settings.grace_s)
        group = 0
        if isinstance(self._policy, KernelPolicy):
            group = self._policy.group_of(context.task, context.profile)
            if fleet.task_room != self._task_room:
                self._task_room = fleet.task_room
                self._policy.make_room(nodes=len(fleet.nodes), tasks=fleet.task_room)
        put(
            demand,
            {
                "group": group,
                "model": table.model(context.task.model),
                "task": number,
                "serial": serial,
                "attempt": event.attempt,
            },
        )
        tried = [avoid for node_id in event.avoid if (avoid := fleet.number(node_id)) is not None][-MOST_TRIED:]
        put(demand, {"tries": len(tried)})
        avoided = demand["tried"] if fleet.arrays else demand.tried
        avoided[: len(tried)] = tried
        return demand

    # ------------------------------------------------------------------------------------------- learning

    def _end(self, event: TaskFinished | TaskFailed) -> None:
        outcome, fleet = event.outcome, self.fleet
        attempt = fleet.end(outcome)
        if attempt is None:
            return  # the task has expired or migrated
        if outcome.status is OutcomeStatus.REJECTED:
            fleet.mark_full(outcome.node_id)
        elif outcome.status is not OutcomeStatus.CANCELLED:  # which says nothing about the arm
            self._learn(event.at_s, attempt, outcome)
        fleet.close(attempt)

    def _learn(self, at_s: float, attempt: OpenAttempt, outcome: Outcome) -> None:
        fleet, record = self.fleet, self.fleet.attempts[attempt.number]
        if outcome.status is OutcomeStatus.OK:
            fleet.observe_link(attempt)
        fleet.kernel(note_reward)(self._rewards, record)
        if isinstance(self._policy, KernelPolicy):
            fleet.kernel(learn_attempt)(self._policy.state, record, float(at_s))
        else:
            reward = get(record, "reward")
            self._policy.update(Feedback(at_s, attempt.context, attempt.estimate, outcome, reward))
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
        snapshot = self._policy.snapshot() if isinstance(self._policy, SavedPolicy) else b""
        return [SaveState(self.policy_name, snapshot)] if snapshot else []

    # ------------------------------------------------------------------------------------------- policies

    def _change_policy(self, event: PolicyChanged) -> list[Action]:
        policy = self._create(event.policy)
        if event.snapshot and isinstance(policy, SavedPolicy):
            policy.restore(event.snapshot)
        saved = self._save() if self._learned else []
        self._changes += 1
        self._policy, self.policy_name = policy, event.policy
        self.fleet.changed = True  # arms get the numbers of this policy
        return saved

    def use_compiled(self, many_arms: int = MANY_ARMS) -> None:
        """Use machine code from the next decision on while there are at least `many_arms` arms.

        It is made at the first call of each kernel; `skyshore.scheduling.compile` makes it ahead.
        """
        self._many_arms, self.fleet.changed = many_arms, True

    def _create(self, name: str) -> Policy:
        rng = np.random.default_rng([self.settings.seed, self._changes])
        return create_policy(name, rng, self.settings.policy_settings.get(name))


def _refusal(policy: str, reason: str, *, transient: bool) -> SkyshoreError:
    refusal = f"policy '{policy}' refuses: {reason}"
    return QueueFull(refusal, retry_after_s=1.0) if transient else NoFeasibleArm(refusal)


def _migrations(node_id: str, task_ids: list[str]) -> list[Action]:
    return [Migrate(task_id, node_id) for task_id in task_ids]
