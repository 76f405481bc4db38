"""A policy whose rule is a kernel: the scheduler and the simulator call its kernels on records.

Such a policy has a `state`, a named tuple of records and arrays, and implements `select_arm` and `learn`
(`skyshore.rules.choose`) for its type. It can be used like any other policy too: `select` and `update` copy what they
are given into records and call the same kernels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.policies.arm_slots import ArmSlots, engine_names
from skyshore.policies.protocol import (
    REFUSED,
    ArmEstimate,
    Arms,
    ArmTable,
    Context,
    Decision,
    Feedback,
    Policy,
)
from skyshore.rules.choose import decide, learn
from skyshore.rules.records import (
    ATTEMPT,
    DECISION,
    DEMAND,
    ESTIMATE,
    MOST_GROUPS,
    NONE,
    Options,
    Record,
    Records,
    in_form,
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
NOT_COPIED = {"arm_id", "node_id", "is_cloud"}
COPIED = (*(name for name in ArmEstimate._fields if name not in NOT_COPIED), "latency_s")
"""Numbers that `ArmEstimate` and the records name alike."""


class KernelPolicy(Policy):
    """Keeps the numbers of arms, engines, service classes and tasks that the records use."""

    state: Any
    """A named tuple: its type says which kernels decide."""

    def __init__(self) -> None:
        self.arrays = False
        self._groups: dict[str, int] = {}
        self._arms = {kind: ArmSlots(partial(self.prepare_arm, KIND_NUMBERS[kind])) for kind in TaskKind}
        self._engines = {
            kind: ArmSlots(partial(self.prepare_engine, KIND_NUMBERS[kind]), engine_names) for kind in TaskKind
        }
        self._tasks: dict[str, int] = {}

    # ------------------------------------------------------------------------------- for a policy to fill in

    def prepare_arm(self, kind: int, slot: int) -> None:
        """Make room for an arm never met and blank it."""

    def prepare_engine(self, kind: int, slot: int) -> None:
        """Make room for an engine never met and blank it."""

    def prepare_tasks(self, count: int) -> None:
        """Make room for task numbers below `count`."""

    def reason(self, decision: Record) -> str:
        """Why a task was refused, in words."""
        return ""

    # ------------------------------------------------------------------------ for the scheduler and simulator

    def use(self, *, arrays: bool) -> None:
        """Keep the state as arrays for machine code, or as lists for plain Python."""
        if arrays != self.arrays:
            self.state = in_form(self.state, arrays=arrays)
            self.arrays = arrays

    def number_arms(self, table: ArmTable) -> tuple[list[int], list[int]]:
        """The numbers of a table's arms and of their engines, row by row; they stay while the arms do."""
        return self._arms[table.kind].of_table(table), self._engines[table.kind].of_table(table)

    def group(self, service_class: str) -> int:
        """The number of a service class; the last number stands for all beyond the bound."""
        group = self._groups.get(service_class)
        if group is None:
            group = min(len(self._groups), MOST_GROUPS - 1)
            if group < MOST_GROUPS - 1:
                self._groups[service_class] = group
        return group

    def decision(self, options: Options, count: int) -> Decision:
        """What the kernel wrote, as other policies would answer."""
        written = options.decision[0]
        scores = None
        if written.scores:
            scores = np.array(options.scores[:count])
        features = (written.f0, written.f1, written.f2, written.f3)[: int(written.features)]
        if written.index == NONE:
            transient = bool(written.transient)
            reason = self.reason(written)
            return Decision(REFUSED, float(written.propensity), scores, features, reason, transient)
        return Decision(int(written.index), float(written.propensity), scores, features)

    # ------------------------------------------------------------------------------------- as any other policy

    def select(self, context: Context, arms: Arms) -> Decision:
        """See Policy."""
        self.use(arrays=False)
        count = len(arms)
        options = Options(rows(DECISION, 1, arrays=False), rows(ESTIMATE, count, arrays=False), [0.0] * count)
        options.decision[0].count = count
        fill_estimates(options.estimates, arms, *self.number_arms(arms.table), context.remaining_s)
        decide(self.state, self.demand(context), options)
        return self.decision(options, count)

    def update(self, feedback: Feedback) -> None:
        """See Policy."""
        self.use(arrays=False)
        learn(self.state, self._attempt(feedback), feedback.now_s)

    def demand(self, context: Context) -> Record:
        """A task to be placed as a record."""
        task, profile, demand = context.task, context.profile, rows(DEMAND, 1, arrays=False)[0]
        demand.now_s, demand.waited_s, demand.remaining_s = context.now_s, context.waited_s, context.remaining_s
        demand.deadline_s, demand.min_quality = task.deadline_s, task.min_quality
        demand.kind, demand.group = KIND_NUMBERS[task.kind], self.group(task.service_class)
        demand.prompt_tokens, demand.output_tokens = float(profile.prompt_tokens), profile.expected_output_tokens
        demand.frames, demand.input_bytes = profile.frame_count, float(profile.input_bytes)
        demand.task, demand.serial = self._task(task.task_id)
        return demand

    def _task(self, task_id: str) -> tuple[int, int]:
        """Number and serial of a task that is placed outside a scheduler; numbers are not used again."""
        number = self._tasks.setdefault(task_id, len(self._tasks))
        self.prepare_tasks(number + 1)
        return number, number

    def _attempt(self, feedback: Feedback) -> Record:
        context, arm, outcome = feedback.context, feedback.arm, feedback.outcome
        worker, attempt = outcome.worker, rows(ATTEMPT, 1, arrays=False)[0]
        for name in COPIED:
            setattr(attempt, name, float(getattr(arm, name)))
        attempt.decided_s, attempt.waited_s = context.now_s, context.waited_s
        attempt.remaining_s, attempt.deadline_s = context.remaining_s, outcome.deadline_s
        attempt.min_quality, attempt.kind = context.task.min_quality, KIND_NUMBERS[context.task.kind]
        attempt.group = self.group(context.task.service_class)
        attempt.slot = self._arms[context.task.kind].of_arm(arm.arm_id)
        attempt.task, attempt.serial = self._task(context.task.task_id)
        attempt.is_cloud, attempt.status = int(arm.is_cloud), STATUS_NUMBERS[outcome.status]
        attempt.answered, attempt.met = int(outcome.status is OutcomeStatus.OK), int(outcome.met_deadline)
        attempt.told_at_s, attempt.measured_s = outcome.finished_at_s, outcome.latency_s
        attempt.gateway_s, attempt.queued_s = outcome.gateway_s, worker.queue_s
        attempt.prefill_s, attempt.compute_s = worker.prefill_s, worker.compute_s
        attempt.transmission_joules, attempt.inference_joules = outcome.transmission_joules, worker.inference_joules
        attempt.idle_joules, attempt.answer_quality = worker.idle_joules, outcome.quality
        attempt.sent_bytes, attempt.received_bytes = float(outcome.up_bytes), float(outcome.down_bytes)
        attempt.reward = feedback.reward
        return attempt


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
