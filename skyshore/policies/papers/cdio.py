"""CDIO's cross-domain optimisation as a combinatorial bandit (arXiv 2502.04078).

From the paper (the digest, part 2, marks what comes from secondary sources): the policy minimises the use of compute
and bandwidth, U + φ·B, under demands on accuracy and delay. A task that is predicted to prefer compute goes to the
cloud first, one that prefers bandwidth to the edge first. The paper states the regret of CUCB (Chen, Wang and Yuan,
2013), so the index is

    1 − c + √(3·ln t / 2n),    c = (u + φ·b) / (1 + φ) in [0, 1]

per (preference, complexity bin, arm). u is the seconds of one slot that a task takes, and b its bytes on the link. Both
are shares of what the node offers within the deadline. Preference and complexity come with the task's profile.

Our choices:
- Feasibility is optimistic: mean accuracy + radius must reach the demand, mean delay − radius the time left.
- Delay is learned as measured / estimated latency, so the current queue counts.
- The oracle is greedy by regret with moves and swaps (`skyshore.rules.assignment`), over the arrivals of a slot.
- The usable share of the deadline shrinks by 5 % after a violation and grows by 0.5 % after a success.
- A task with no feasible arm in its preferred tier tries the other tier; with no feasible arm it takes the fastest.

Left out: the paper's per-task shares of a server, which no engine here can grant.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.policies.kernel_policy import KIND_NUMBERS, KernelPolicy
from skyshore.policies.learning.class_statistics import fill_statistics, pack_statistics
from skyshore.policies.learning.snapshot import join_parts, split_parts, unpack
from skyshore.policies.protocol import ArmTable
from skyshore.rules.assignment import Assignment, assign, blank_assignment
from skyshore.rules.choose import learn, note_task, plan_slot, select_arm, take_first_best
from skyshore.rules.kernel import implement, kernel
from skyshore.rules.records import KINDS, NONE, Floats, Integers, Options, Record, floats, integers
from skyshore.rules.statistics import Statistics, blank_statistics, forget_arm, learn_reward, mean_reward, with_slots

FORMAT = "cdio/1"
COMPLEXITY_EDGES = (0.01, 0.03, 0.06)
"""Bins of Σ C_k from k = 1 on; the first entry is contrast only."""
BINS = len(COMPLEXITY_EDGES) + 1
GROUPS = {
    f"{preference}/{bin_}": bin_ + BINS * number
    for number, preference in enumerate(("bandwidth", "compute"))
    for bin_ in range(BINS)
}
"""Numbers of the groups by their names in snapshots: from `BINS` on are the tasks that prefer compute."""
COMPUTE_BELOW = 0.0125
"""Without the LSTM: Σ C_k from k = 1 on below which a task is taken to prefer compute.

`preference.json` holds the threshold and the direction. They were chosen on the training cameras.
"""
NARROWER, WIDER, NARROWEST = 0.95, 1.005, 0.5
RADIUS_OF_DEMANDS = 0.1
"""Weight of the radius in the feasibility tests. With a weight of 1, all arms would stay feasible for too long."""
FIRST_ARMS = 16


class CdioSettings(NamedTuple):
    """Constants of a run."""

    phi: float
    discount: float
    preference: int
    bandit: int


class SlotTasks(NamedTuple):
    """The tasks of the slot that is being placed."""

    counts: Integers
    """[2] tasks noted; 1 once they are planned."""
    tasks: Integers
    """[tasks in a slot] number of each task."""
    kinds: Integers
    """[tasks in a slot] kind of each."""
    widths: Integers
    """[kinds] arms in the table of a kind."""
    slots: Integers
    """[kinds][arms] slot of the arm in each row of the table."""
    nodes: Integers
    """[kinds][arms] its node."""
    task_room: Floats
    """[nodes] tasks that the node still takes."""
    rate_room: Floats
    """[nodes] bytes per second that its link still carries."""
    planned: Integers
    """[tasks under way] slot of the arm planned for a task, or NONE."""


class CdioState(NamedTuple):
    """Settings, the statistics per group, and the tasks of the slot."""

    settings: CdioSettings
    cost: Statistics
    accuracy: Statistics
    delay: Statistics
    """Measured / estimated latency."""
    share: Floats
    """[groups] usable share of the deadline."""
    slot: SlotTasks
    problem: Assignment


@implement(select_arm, CdioState)
def select_cdio(state: CdioState, demand: Record, options: Options) -> None:
    """Take the planned arm if it still has room, else the best for this task alone, else the fastest."""
    decision, scores = options.decision[0], options.scores
    score_cdio(state, demand, options)
    planned = state.slot.planned[demand.task]
    state.slot.planned[demand.task] = NONE
    if planned != NONE:
        for index in range(decision.count):
            if options.estimates[index].slot == planned:
                decision.scores, decision.index = 1, index
                return
    take_first_best(options)
    if scores[decision.index] == -math.inf:
        fastest = 0
        for index in range(1, decision.count):
            if options.estimates[index].latency_s < options.estimates[fastest].latency_s:
                fastest = index
        decision.index = fastest


@kernel
def score_cdio(state: CdioState, demand: Record, options: Options) -> None:
    """CUCB index of the arms that are feasible in the tier to be tried first; −∞ for the rest."""
    settings, scores, count = state.settings, options.scores, options.decision[0].count
    total = state.cost.totals[demand.kind][demand.group]
    log_total = max(math.log(max(total, 1.0)), 0.0)
    wants_cloud = 1 if demand.group >= BINS else 0
    some_first = False
    for index in range(count):
        estimate = options.estimates[index]
        scores[index] = score_arm(state, demand, estimate, log_total)
        if scores[index] > -math.inf and estimate.is_cloud == wants_cloud:
            some_first = True
    if settings.preference and some_first:
        for index in range(count):
            if options.estimates[index].is_cloud != wants_cloud:
                scores[index] = -math.inf


@kernel
def score_arm(state: CdioState, demand: Record, estimate: Record, log_total: float) -> float:
    """1 − c + √(3·ln t / 2n); −∞ if accuracy or delay is infeasible. The stated cost orders arms never tried."""
    kind, group, slot = demand.kind, demand.group, estimate.slot
    stated = cost_of(state.settings.phi, estimate.service_s, estimate.up_bytes, estimate, max(demand.remaining_s, 1e-3))
    radius, score = 0.0, 1.0 - stated
    if state.settings.bandit:
        pulls = state.cost.counts[kind][group][slot]
        radius = math.sqrt(1.5 * log_total / max(pulls, 1e-9))
        score = math.inf
        if pulls > 0:
            score = 1.0 - mean_reward(state.cost.sums[kind][group][slot], pulls) + radius
    margin = min(radius, 1.0) * RADIUS_OF_DEMANDS
    delay_s, quality = estimate.latency_s, estimate.quality
    seen = state.delay.counts[kind][group][slot]
    if seen > 0:
        delay_s = delay_s * mean_reward(state.delay.sums[kind][group][slot], seen)
    known = state.accuracy.counts[kind][group][slot]
    if known > 0:
        quality = mean_reward(state.accuracy.sums[kind][group][slot], known)
    in_time = delay_s * (1.0 - margin) <= demand.remaining_s * state.share[group]
    if in_time and quality + margin >= demand.min_quality:
        return min(score, 1e6 - stated)
    return -math.inf


@kernel
def cost_of(phi: float, used_s: float, sent_bytes: float, arm: Record, allowed_s: float) -> float:
    """Cost c = (u + φ·b) / (1 + φ) of seconds and bytes on an arm (an ESTIMATE or ATTEMPT), at most 1."""
    compute = used_s / (arm.slots * allowed_s)
    link = sent_bytes / (arm.up_bytes_per_s * allowed_s)
    return float(min((compute + phi * link) / (1.0 + phi), 1.0))


@implement(learn, CdioState)
def learn_cdio(state: CdioState, attempt: Record, now_s: float) -> None:
    """Learn measured cost, accuracy and delay; change the usable share of the deadline."""
    kind, group, slot, discount = attempt.kind, attempt.group, attempt.slot, state.settings.discount
    kept = attempt.met and attempt.answer_quality >= attempt.min_quality
    state.share[group] = min(max(state.share[group] * (WIDER if kept else NARROWER), NARROWEST), 1.0)
    learn_reward(state.delay, kind, group, slot, attempt.measured_s / max(attempt.latency_s, 1e-3), discount)
    cost = 1.0
    if attempt.answered:
        used_s = attempt.prefill_s + attempt.compute_s
        cost = cost_of(state.settings.phi, used_s, attempt.sent_bytes, attempt, attempt.deadline_s)
        learn_reward(state.accuracy, kind, group, slot, attempt.answer_quality, discount)
    learn_reward(state.cost, kind, group, slot, cost, discount)


@implement(note_task, CdioState)
def note_cdio(state: CdioState, demand: Record, options: Options) -> None:
    """Note the scores and needs of a task, and the room of the nodes that may take it."""
    slot, problem = state.slot, state.problem
    if slot.counts[1]:
        for place in range(slot.counts[0]):
            slot.planned[slot.tasks[place]] = NONE
        slot.counts[0] = slot.counts[1] = 0
    place = slot.counts[0]
    slot.counts[0] += 1
    slot.tasks[place], slot.kinds[place] = demand.task, demand.kind
    score_cdio(state, demand, options)
    for arm in range(slot.widths[demand.kind]):
        problem.scores[place][arm] = -math.inf
    for index in range(options.decision[0].count):
        estimate = options.estimates[index]
        problem.scores[place][estimate.row] = options.scores[index]
        problem.rates[place][estimate.row] = estimate.up_bytes / max(demand.remaining_s, 1e-3)
        slot.slots[demand.kind][estimate.row], slot.nodes[demand.kind][estimate.row] = estimate.slot, estimate.node
        slot.task_room[estimate.node] = estimate.capacity - estimate.load
        slot.rate_room[estimate.node] = max(estimate.up_bytes_per_s - estimate.reserved_bytes_per_s, 0.0)


@implement(plan_slot, CdioState)
def plan_cdio(state: CdioState) -> None:
    """Assign the tasks of the slot jointly, kind by kind."""
    slot, problem = state.slot, state.problem
    slot.counts[1] = 1
    for kind in range(KINDS):
        tasks = 0
        for place in range(slot.counts[0]):
            if slot.kinds[place] == kind:
                problem.order[tasks] = place
                tasks += 1
        if tasks == 0:
            continue
        for node in range(len(slot.task_room)):
            problem.task_room[node], problem.rate_room[node] = slot.task_room[node], slot.rate_room[node]
        for arm in range(slot.widths[kind]):
            problem.node[arm] = slot.nodes[kind][arm]
        assign(problem, tasks, slot.widths[kind])
        for each in range(tasks):
            place = problem.order[each]
            arm = problem.choice[place]
            slot.planned[slot.tasks[place]] = slot.slots[kind][arm] if arm != NONE else NONE


class Cdio(KernelPolicy):
    """The bandit; `preference`, `lstm`, `complexity` and `bandit` each switch one part on or off.

    Without `lstm` the preference comes from a threshold on complexity. Without `preference` no tier comes first.
    Without `complexity` all tasks share one bin, and the preference is still predicted. Without `bandit` the stated
    costs decide.
    """

    state: CdioState
    groups_by_profile = plans_slots = True

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        phi: float = 1.0,
        discount: float = 0.995,
        slot_s: float = 0.05,
        preference: bool = True,
        lstm: bool = True,
        complexity: bool = True,
        bandit: bool = True,
    ) -> None:
        """The generator is not needed: ties go to the first arm. Raises ValueError for a setting out of range."""
        if not 0 < discount <= 1:
            raise ValueError(f"discount must lie in (0, 1], not {discount}")
        super().__init__()
        self.slot_s = slot_s
        self._preference, self._lstm, self._complexity = preference, lstm, complexity
        self._nodes, self._tasks_in_slot = 1, 1
        self.state = CdioState(
            settings=CdioSettings(float(phi), float(discount), int(preference), int(bandit)),
            cost=blank_statistics(FIRST_ARMS, len(GROUPS)),
            accuracy=blank_statistics(FIRST_ARMS, len(GROUPS)),
            delay=blank_statistics(FIRST_ARMS, len(GROUPS)),
            share=floats(len(GROUPS), arrays=False, fill=1.0),
            slot=SlotTasks(
                counts=integers(2, arrays=False),
                tasks=integers(1, arrays=False),
                kinds=integers(1, arrays=False),
                widths=integers(KINDS, arrays=False),
                slots=integers(KINDS, FIRST_ARMS, arrays=False),
                nodes=integers(KINDS, FIRST_ARMS, arrays=False),
                task_room=floats(1, arrays=False),
                rate_room=floats(1, arrays=False),
                planned=integers(1, arrays=False, fill=NONE),
            ),
            problem=blank_assignment(1, FIRST_ARMS, 1),
        )

    def group_of(self, task: Task, profile: TaskProfile) -> int:
        """The number of preference and complexity bin."""
        structure = sum(profile.complexity[1:8])
        bin_ = sum(structure > edge for edge in COMPLEXITY_EDGES) if self._complexity else 0
        return bin_ + (BINS if self._preference and self._wants_compute(profile) else 0)

    def number_arms(self, table: ArmTable) -> tuple[list[int], list[int]]:
        """See KernelPolicy."""
        numbers = super().number_arms(table)
        self.state.slot.widths[KIND_NUMBERS[table.kind]] = len(table.arm_ids)
        return numbers

    def prepare_arm(self, kind: int, slot: int) -> None:
        """See KernelPolicy."""
        cost, accuracy, delay = (with_slots(each, slot + 1) for each in self._tables())
        for each in (cost, accuracy, delay):
            forget_arm(each, kind, slot)
        self.state = self.state._replace(cost=cost, accuracy=accuracy, delay=delay)
        room = len(cost.counts[0][0])
        if room > len(self.state.problem.node):
            for table in (self.state.slot.slots, self.state.slot.nodes):
                for arms in table:
                    arms.extend([0] * (room - len(arms)))
            self._blank_problem()

    def prepare_nodes(self, count: int) -> None:
        """See KernelPolicy."""
        if count > self._nodes:
            self._nodes = max(count, 2 * self._nodes)
            for room in (self.state.slot.task_room, self.state.slot.rate_room):
                room.extend([0.0] * (self._nodes - len(room)))
            self._blank_problem()

    def prepare_tasks(self, count: int) -> None:
        """See KernelPolicy."""
        planned = self.state.slot.planned
        if count > len(planned):
            planned.extend([NONE] * max(count - len(planned), len(planned)))

    def prepare_slot(self, count: int) -> None:
        """See KernelPolicy."""
        self._tasks_in_slot = count
        for numbers in (self.state.slot.tasks, self.state.slot.kinds):
            numbers.extend([0] * (count - len(numbers)))
        self._blank_problem()

    def snapshot(self) -> bytes:
        """Statistics of every kind; the shares are relearned within a few tasks."""
        return join_parts(
            [
                pack_statistics(FORMAT, table, number, GROUPS, self.known_arms(kind))
                for table in self._tables()
                for kind, number in KIND_NUMBERS.items()
            ]
        )

    def restore(self, snapshot: bytes) -> None:
        """See SavedPolicy."""
        parts = [unpack(FORMAT, part) for part in split_parts(snapshot, 3 * len(TaskKind))]
        arrays = self.arrays
        self.use(arrays=False)
        room = len(self.state.problem.node)
        cost, accuracy, delay = (blank_statistics(room, len(GROUPS)) for _ in range(3))
        self.state = self.state._replace(cost=cost, accuracy=accuracy, delay=delay)
        places = [(table, kind) for table in (cost, accuracy, delay) for kind in TaskKind]
        for (table, kind), part in zip(places, parts, strict=True):
            fill_statistics(table, KIND_NUMBERS[kind], part, GROUPS.__getitem__, partial(self.arm_number, kind))
        self.use(arrays=arrays)

    def _tables(self) -> tuple[Statistics, Statistics, Statistics]:
        return self.state.cost, self.state.accuracy, self.state.delay

    def _blank_problem(self) -> None:
        arms = len(self.state.cost.counts[0][0])
        self.state = self.state._replace(problem=blank_assignment(self._tasks_in_slot, arms, self._nodes))

    def _wants_compute(self, profile: TaskProfile) -> bool:
        if self._lstm or not profile.complexity:
            return profile.compute_preference >= 0.5
        return sum(profile.complexity[1:8]) < COMPUTE_BELOW
