"""A policy whose rule is a kernel: the scheduler and the simulator call its kernels on records.

Such a policy has a `state`, a named tuple of records and arrays, and implements `select_arm` and `learn`
(`skyshore.rules.choose`) for its type. It can be used like any other policy too: `select` and `update` copy what they
are given into records and call the same kernels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.policies.learning.arm_slots import ArmSlots, engine_names
from skyshore.policies.protocol import (
    ESTIMATED,
    REFUSED,
    Arms,
    ArmTable,
    Context,
    Decision,
    Feedback,
)
from skyshore.rules.choose import decide, learn
from skyshore.rules.records import (
    ATTEMPT,
    DEMAND,
    MOST_GROUPS,
    NONE,
    Options,
    Record,
    Records,
    blank_options,
    get,
    in_form,
    put,
    rows,
)
from skyshore.rules.slack import spare_share

KIND_NUMBERS = {kind: number for number, kind in enumerate(TaskKind)}
STATUSES = (
    OutcomeStatus.OK,
    OutcomeStatus.FAILED,
    OutcomeStatus.REJECTED,
    OutcomeStatus.DEADLINE_EXCEEDED,
    OutcomeStatus.CANCELLED,
)
"""By their numbers in records."""
STATUS_NUMBERS = {status: number for number, status in enumerate(STATUSES)}
FEATURES = ("f0", "f1", "f2", "f3")
COPIED = (*ESTIMATED, "latency_s")


class KernelPolicy:
    """Keeps the numbers of arms, engines, service classes and tasks that the records use."""

    state: Any
    """A named tuple: its type says which kernels decide."""
    groups_by_profile = False
    """Whether `group_of` needs the profile of a task."""
    plans_slots = False
    """Whether `note_task` and `plan_slot` are to be called at the end of a slot."""

    def __init__(self) -> None:
        self.arrays = False
        self._groups: dict[str, int] = {}
        self._arms = {kind: ArmSlots(partial(self.prepare_arm, KIND_NUMBERS[kind])) for kind in TaskKind}
        self._engines = {
            kind: ArmSlots(partial(self.prepare_engine, KIND_NUMBERS[kind]), engine_names) for kind in TaskKind
        }
        self._tasks: dict[str, int] = {}
        self._slot_room = 1

    # ------------------------------------------- for a policy to fill in; the state is in lists when they are called

    def prepare_arm(self, kind: int, slot: int) -> None:
        """Make room for a new arm and blank it."""

    def prepare_engine(self, kind: int, slot: int) -> None:
        """Make room for a new engine and blank it."""

    def prepare_tasks(self, count: int) -> None:
        """Make room for task numbers below `count`."""

    def prepare_nodes(self, count: int) -> None:
        """Make room for node numbers below `count`."""

    def prepare_slot(self, count: int) -> None:
        """Make room for `count` tasks in a slot."""

    def group_of(self, task: Task, profile: TaskProfile) -> int:
        """The number of the group in which a task is learned from: by default that of its service class.

        A policy that looks at the profile sets `groups_by_profile`.
        """
        return self.group(task.service_class)

    def reason(self, features: tuple[float, ...]) -> str:
        """Why a task was refused, in words, from the features of the decision."""
        return ""

    # ------------------------------------------------------------------------ for the scheduler and simulator

    def use(self, *, arrays: bool) -> None:
        """Keep the state as arrays for machine code, or as lists for plain Python."""
        if arrays != self.arrays:
            self.state = in_form(self.state, arrays=arrays)
            self.arrays = arrays

    def make_room(self, *, nodes: int, tasks: int) -> None:
        """Let the state take node and task numbers below these."""
        arrays = self.arrays
        self.use(arrays=False)
        self.prepare_nodes(nodes)
        self.prepare_tasks(tasks)
        self.use(arrays=arrays)

    def make_slot_room(self, count: int) -> None:
        """Let the state take `count` tasks in a slot; the room doubles."""
        if count > self._slot_room:
            self._slot_room = max(count, 2 * self._slot_room)
            arrays = self.arrays
            self.use(arrays=False)
            self.prepare_slot(self._slot_room)
            self.use(arrays=arrays)

    def number_arms(self, table: ArmTable) -> tuple[list[int], list[int]]:
        """The numbers of a table's arms and of their engines, row by row; they stay while the arms do.

        Arms never met are prepared; the state is in lists afterwards.
        """
        self.use(arrays=False)
        return self._arms[table.kind].of_table(table), self._engines[table.kind].of_table(table)

    def arm_number(self, kind: TaskKind, arm_id: str) -> int:
        """The number of one arm; a new arm gets one."""
        return self._arms[kind].of_arm(arm_id)

    def known_arms(self, kind: TaskKind) -> dict[str, int]:
        """All arms remembered and their numbers."""
        return self._arms[kind].known()

    def known_groups(self) -> dict[str, int]:
        """Service classes and their numbers."""
        return dict(self._groups)

    def group(self, service_class: str) -> int:
        """The number of a service class; all classes beyond the bound share the last number."""
        group = self._groups.get(service_class)
        if group is None:
            group = min(len(self._groups), MOST_GROUPS - 1)
            if group < MOST_GROUPS - 1:
                self._groups[service_class] = group
        return group

    def decision(self, options: Options, count: int) -> Decision:
        """The kernel's decision as a `Decision`."""
        written = options.decision[0]
        scores = np.array(options.scores[:count]) if get(written, "scores") else None
        features = tuple(get(written, name) for name in FEATURES[: get(written, "features")])
        index, propensity = get(written, "index"), get(written, "propensity")
        if index == NONE:
            transient = bool(get(written, "transient"))
            return Decision(REFUSED, propensity, scores, features, self.reason(features), transient)
        return Decision(index, propensity, scores, features)

    # ------------------------------------------------------------------------------------- as any other policy

    def select(self, context: Context, arms: Arms) -> Decision:
        """See Policy."""
        self.use(arrays=False)
        count = len(arms)
        self.prepare_nodes(int(arms.node.max()) + 1)
        options = blank_options(count, arrays=False)
        options.decision[0].count = count
        fill_estimates(options.estimates, arms, *self.number_arms(arms.table), context.remaining_s)
        decide(self.state, self._demand(context), options)
        return self.decision(options, count)

    def update(self, feedback: Feedback) -> None:
        """See Policy."""
        self.use(arrays=False)
        learn(self.state, self._attempt(feedback), feedback.now_s)

    def _demand(self, context: Context) -> Record:
        demand = rows(DEMAND, 1, arrays=False)[0]
        put(demand, demand_values(context))
        demand.group = self.group_of(context.task, context.profile)
        demand.task, demand.serial = self._task(context.task.task_id)
        return demand

    def _task(self, task_id: str) -> tuple[int, int]:
        """Number and serial of a task that is placed outside a scheduler; numbers are not used again."""
        number = self._tasks.setdefault(task_id, len(self._tasks))
        self.prepare_tasks(number + 1)
        return number, number

    def _attempt(self, feedback: Feedback) -> Record:
        context, arm, outcome = feedback.context, feedback.arm, feedback.outcome
        attempt = rows(ATTEMPT, 1, arrays=False)[0]
        put(attempt, {name: float(getattr(arm, name)) for name in COPIED})
        attempt.decided_s, attempt.waited_s = context.now_s, context.waited_s
        attempt.remaining_s, attempt.min_quality = context.remaining_s, context.task.min_quality
        attempt.kind, attempt.group = KIND_NUMBERS[context.task.kind], self.group_of(context.task, context.profile)
        attempt.slot = self.arm_number(context.task.kind, arm.arm_id)
        attempt.task, attempt.serial = self._task(context.task.task_id)
        attempt.is_cloud, attempt.reward = int(arm.is_cloud), feedback.reward
        fill_outcome(attempt, outcome)
        return attempt


def demand_values(context: Context) -> dict[str, float]:
    """The fields of a DEMAND that a task, its profile and the time of the decision give."""
    task, profile = context.task, context.profile
    return {
        "now_s": context.now_s,
        "waited_s": context.waited_s,
        "remaining_s": context.remaining_s,
        "deadline_s": task.deadline_s,
        "min_quality": task.min_quality,
        "kind": KIND_NUMBERS[task.kind],
        "model": NONE,
        "prompt_tokens": profile.prompt_tokens,
        "expected_tokens": profile.expected_output_tokens,
        "frames": profile.frame_count,
        "input_bytes": float(profile.input_bytes),
    }


def fill_outcome(attempt: Record, outcome: Outcome) -> None:
    """Write what was measured into an ATTEMPT."""
    worker = outcome.worker
    put(
        attempt,
        {
            "deadline_s": outcome.deadline_s,
            "status": STATUS_NUMBERS[outcome.status],
            "answered": int(outcome.status is OutcomeStatus.OK),
            "met": int(outcome.met_deadline),
            "measured_s": outcome.latency_s,
            "gateway_s": outcome.gateway_s,
            "queued_s": worker.queue_s,
            "prefill_s": worker.prefill_s,
            "compute_s": worker.compute_s,
            "transmission_joules": outcome.transmission_joules,
            "inference_joules": worker.inference_joules,
            "idle_joules": worker.idle_joules,
            "answer_quality": outcome.quality,
            "sent_bytes": float(outcome.up_bytes),
            "received_bytes": float(outcome.down_bytes),
        },
    )


def fill_estimates(records: Records, arms: Arms, slots: list[int], engines: list[int], remaining_s: float) -> None:
    """Copy the rows of `arms` into ESTIMATE records."""
    for index, row in enumerate(arms.rows.tolist()):
        record, estimate = records[index], arms.estimate(index)
        for name in COPIED:
            setattr(record, name, getattr(estimate, name))
        record.arm = record.row = row
        record.node, record.is_cloud = int(arms.node[index]), int(estimate.is_cloud)
        record.slot, record.engine = slots[row], engines[row]
        record.spare_share = spare_share(
            estimate.load,
            estimate.capacity,
            estimate.up_bytes,
            estimate.reserved_bytes_per_s,
            estimate.up_bytes_per_s,
            estimate.kv_used,
            max(remaining_s, 1e-9),
        )
