"""Makes the machine code of a scheduler in advance, so that no decision waits for it."""

from __future__ import annotations

from collections.abc import Mapping

from skyshore.domain.errors import QueueFull
from skyshore.domain.node import Arm, Link, Node, NodeStatus, Tier
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.scheduling.actions import Dispatch
from skyshore.scheduling.core import CoreSettings, SchedulerCore
from skyshore.scheduling.events import LinkChanged, NodeLost, NodeReported, TaskArrived, TaskFailed, TaskFinished, Tick

PROFILE = TaskProfile(prompt_tokens=10, expected_output_tokens=10.0, input_bytes=100)


def compile_kernels(policy: str, settings: Mapping[str, Mapping[str, float | str | bool]] | None = None) -> None:
    """Run a short history on two nodes, which calls every kernel that a core under `policy` calls.

    It takes up to a minute the first time, and about a second where the machine code was kept. It needs numba.
    """
    core = SchedulerCore(CoreSettings(policy=policy, policy_settings=settings or {}))
    core.use_compiled(many_arms=1)
    for name, tier in (("a", Tier.EDGE), ("b", Tier.CLOUD)):
        arm = Arm(f"{name}/m", name, TaskKind.LLM, "m", quality=0.5, slots=2, busy_watts=1.0)
        core.handle(NodeReported(0.0, Node(name, tier, "", (arm,)), NodeStatus(name, capacity=2)))
    for number, status in enumerate((OutcomeStatus.OK, OutcomeStatus.FAILED, OutcomeStatus.DEADLINE_EXCEEDED)):
        _finish(core, f"t{number}", status)
    core.handle(LinkChanged(2.0, "a", Link(1e6, 1e6, 0.01, 1e-8)))
    first = _place(core, "r", 1)
    if first is not None:
        _place(core, "r", 2, first.arm.node_id)
        core.handle(TaskFailed(3.0, _outcome("r", first.arm, OutcomeStatus.REJECTED, error=QueueFull.code)))
    core.handle(NodeLost(4.0, "a"))
    core.handle(Tick(100.0))


def _place(core: SchedulerCore, task_id: str, attempt: int, *avoid: str) -> Dispatch | None:
    task = Task(task_id, TaskKind.LLM, deadline_s=10.0, min_quality=0.1)
    actions = core.handle(TaskArrived(1.0, task, PROFILE, attempt, avoid)) or core.handle(Tick(2.0))
    return next((action for action in actions if isinstance(action, Dispatch)), None)


def _finish(core: SchedulerCore, task_id: str, status: OutcomeStatus) -> None:
    placed = _place(core, task_id, 1)
    if placed is not None:
        end = TaskFinished if status is OutcomeStatus.OK else TaskFailed
        core.handle(end(2.0, _outcome(task_id, placed.arm, status)))


def _outcome(task_id: str, arm: Arm, status: OutcomeStatus, error: str = "") -> Outcome:
    worker = WorkerOutcome(prefill_s=0.1, compute_s=0.2, inference_joules=1.0)
    return Outcome(
        task_id, arm.arm_id, arm.node_id, status, 2.0, 1.0, 10.0, up_bytes=100, quality=0.5, error=error, worker=worker
    )
