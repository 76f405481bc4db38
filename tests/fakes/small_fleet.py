"""Builders of tasks, nodes and outcomes with sensible values, so that a test names only what it is about."""

from dataclasses import replace

from skyshore.domain.node import Arm, Node, NodeStatus, Tier
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind

LLM_PROFILE = TaskProfile(prompt_tokens=100, expected_output_tokens=50.0, input_bytes=500)
VIDEO_PROFILE = TaskProfile(frame_count=30, width=640, height=360, fps=25.0, input_bytes=300_000)


def llm_arm(node_id: str, **changes: object) -> Arm:
    arm = Arm(
        arm_id=f"{node_id}/smollm2",
        node_id=node_id,
        kind=TaskKind.LLM,
        model="smollm2",
        quality=0.6,
        slots=2,
        prefill_tokens_per_s=500.0,
        decode_tokens_per_s=50.0,
        context_tokens=2048,
        busy_watts=20.0,
    )
    return replace(arm, **changes)  # type: ignore[arg-type]


def video_arm(node_id: str, **changes: object) -> Arm:
    arm = Arm(
        arm_id=f"{node_id}/nanodet@416",
        node_id=node_id,
        kind=TaskKind.VIDEO_DETECT,
        model="nanodet",
        quality=0.7,
        frame_s=0.03,
        input_size=416,
        bytes_per_frame=20_000.0,
        busy_watts=15.0,
    )
    return replace(arm, **changes)  # type: ignore[arg-type]


def node(node_id: str, *arms: Arm, tier: Tier = Tier.EDGE, incarnation: str = "1") -> Node:
    """A node; with no arms given it offers one LLM arm and one video arm."""
    offered = arms or (llm_arm(node_id), video_arm(node_id))
    return Node(node_id, tier, f"127.0.0.1:1{len(node_id)}", offered, idle_watts=5.0, incarnation=incarnation)


def status(node_id: str, **changes: object) -> NodeStatus:
    return replace(NodeStatus(node_id, capacity=8), **changes)  # type: ignore[arg-type]


def llm_task(task_id: str = "t1", **changes: object) -> Task:
    return replace(Task(task_id, TaskKind.LLM), **changes)  # type: ignore[arg-type]


def video_task(task_id: str = "v1", **changes: object) -> Task:
    return replace(Task(task_id, TaskKind.VIDEO_DETECT), **changes)  # type: ignore[arg-type]


def outcome(task_id: str, arm_id: str, node_id: str, **changes: object) -> Outcome:
    good = Outcome(
        task_id=task_id,
        arm_id=arm_id,
        node_id=node_id,
        status=OutcomeStatus.OK,
        finished_at_s=2.0,
        latency_s=1.0,
        deadline_s=60.0,
        up_bytes=500,
        down_bytes=200,
        transmission_joules=0.5,
        quality=0.6,
        worker=WorkerOutcome(prefill_s=0.2, compute_s=0.7, inference_joules=18.0, idle_joules=2.0),
    )
    return replace(good, **changes)  # type: ignore[arg-type]
