"""What Skyshore needs from outside, as Protocols. Adapters and test fakes implement them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from skyshore.domain.job import Job, JobRank, TaskRecord, WaitingJob
from skyshore.domain.llm import LlmInput, TokenChunk
from skyshore.domain.node import EngineLoad, Link, Node, NodeReport, NodeStatus
from skyshore.domain.outcome import Outcome, WorkerOutcome
from skyshore.domain.placement import DecisionRecord, Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task
from skyshore.domain.video import Classification, EncodedFrame, FrameDetections, SegmentEvent, SegmentInfo

# ---------------------------------------------------------------------------------------------- engines


class LlmEngine(Protocol):
    """Generates text with one model."""

    model: str

    def generate(self, task: Task, request: LlmInput) -> AsyncIterator[TokenChunk | WorkerOutcome]:
        """Yield chunks as tokens appear, then exactly one `WorkerOutcome`.

        Closing the iterator early cancels the request and frees its slot within one step.

        Raises:
            InvalidTask: the prompt or sampling is impossible (`PromptTooLong` when it exceeds the context).
            QueueFull: all slots and the queue are full; nothing was started.
            DeadlineExceeded: `task.deadline_s` passed, in the queue or while generating.
        """
        ...

    def load(self) -> EngineLoad:
        """Return the load now. Must be fast: it is called at every heartbeat and admission."""
        ...

    async def close(self) -> None:
        """Release all resources. Called after the last stream ended."""
        ...


class VideoEngine(Protocol):
    """Finds objects in frames with one model."""

    model: str

    def detect(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[FrameDetections | WorkerOutcome]:
        """Yield one `FrameDetections` per frame, in frame order, then exactly one `WorkerOutcome`.

        Frames are pulled no faster than they are processed, which is the sender's back-pressure.

        Raises:
            InvalidMedia: a frame cannot be decoded.
            QueueFull: all slots and the queue are full; nothing was started.
            DeadlineExceeded: `task.deadline_s` passed.
        """
        ...

    def load(self) -> EngineLoad:
        """Return the load now. Must be fast: it is called at every heartbeat and admission."""
        ...

    async def close(self) -> None:
        """Release all resources. Called after the last stream ended."""
        ...


class ClipClassifierEngine(Protocol):
    """Classifies whole clips with one model."""

    model: str

    def classify(
        self, task: Task, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[Classification | WorkerOutcome]:
        """Yield exactly one `Classification`, then exactly one `WorkerOutcome`; the segment is the whole clip.

        Raises:
            InvalidMedia: a frame cannot be decoded, or there is none.
            QueueFull: all slots and the queue are full; nothing was started.
            DeadlineExceeded: `task.deadline_s` passed.
            NodeUnavailable: the processes of the model failed twice.
        """
        ...

    def load(self) -> EngineLoad:
        """Return the load now. Must be fast: it is called at every heartbeat and admission."""
        ...

    async def close(self) -> None:
        """Release all resources. Called after the last stream ended."""
        ...


class EnergyMeter(Protocol):
    """Reads a host's (or a device's) energy."""

    source: str
    """Provenance of the figure: `measured:rapl`, `measured:nvml` or `modelled:<model>`."""

    def joules(self) -> float:
        """Cumulative joules since some fixed start; never decreases."""
        ...


# ---------------------------------------------------------------------------------------- clients of services


class ProfilerClient(Protocol):
    """The gateway's view of the profiler."""

    async def profile_llm(self, task: Task, request: LlmInput) -> TaskProfile:
        """Count prompt tokens and predict the output length."""
        ...

    async def profile_video(self, task: Task, probe: TaskProfile, luma: bytes) -> TaskProfile:
        """Complete `probe` with complexity; `luma` is a key frame's 8-bit grey plane, `probe` has its size."""
        ...


class SchedulerClient(Protocol):
    """The gateway's view of the scheduler."""

    async def place(
        self, task: Task, profile: TaskProfile, *, attempt: int = 1, avoid: Sequence[str] = ()
    ) -> Placement:
        """Ask for an arm. `avoid` names nodes that just failed this task.

        Raises:
            NoFeasibleArm: nothing in the fleet can do it.
            NodeUnavailable: the fleet is empty.
            QueueFull: every feasible node is at capacity.
        """
        ...


class WorkerClient(Protocol):
    """The gateway's view of one node."""

    def execute(self, task: Task, arm_id: str, request: LlmInput) -> AsyncIterator[TokenChunk | WorkerOutcome]:
        """Run an LLM task; same contract as `LlmEngine.generate`, plus `NodeUnavailable`."""
        ...

    def execute_segment(
        self, task: Task, arm_id: str, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[SegmentEvent]:
        """Run one video segment, or classify a clip, as the arm's kind says.

        Same contract as `VideoEngine.detect` or `ClipClassifierEngine.classify`, plus `NodeUnavailable`.
        """
        ...

    async def close(self) -> None:
        """Drop the connection; running calls fail with `NodeUnavailable`."""
        ...


# ------------------------------------------------------------------------------------------------- state


class StateStore(Protocol):
    """The state that all processes share. Keys and formats: `docs/state.md`.

    Every method raises `StoreUnavailable` when the store is away or refuses the command, and `StoreBusy` when this
    process has too many calls open. Nothing else that the store does may raise another error.
    """

    async def ping(self) -> None:
        """Return when the store answers."""
        ...

    async def register_node(self, node: Node, status: NodeStatus, lease_s: float) -> None:
        """Write or renew a node's lease and publish its report."""
        ...

    async def remove_node(self, node_id: str) -> None:
        """End the lease now (a clean stop)."""
        ...

    async def nodes(self) -> list[NodeReport]:
        """All nodes with a valid lease."""
        ...

    async def registry_epoch(self) -> float:
        """When the registry was made: a change means that the store lost what it had.

        It writes. So it raises when nodes cannot renew their leases, although the store can still be read.
        """
        ...

    async def report_links(self, links: Mapping[str, Link], lease_s: float) -> None:
        """Publish measured links by node id, for as long as the lease runs."""
        ...

    async def links(self, node_ids: Sequence[str]) -> dict[str, Link]:
        """Measured links of these nodes; nodes without a measurement are left out."""
        ...

    async def put_task(self, record: TaskRecord) -> None:
        """Write a task's record; durable when this returns."""
        ...

    async def put_tasks(self, records: Sequence[TaskRecord]) -> None:
        """Write many records in one round trip."""
        ...

    async def task(self, task_id: str) -> TaskRecord | None:
        """Read a task's record."""
        ...

    async def accept_job(self, record: TaskRecord, body: bytes, rank: JobRank, most_of_caller: int) -> None:
        """Write the record and its entry in the work stream together: both or neither.

        Raises:
            QueueFull: the stream is full, or the caller of `rank` has `most_of_caller` open jobs.
        """
        ...

    async def restore_job(self, record: TaskRecord, body: bytes, rank: JobRank) -> bool:
        """Put a job that `open_jobs` does not have into the work stream again; False if it ended.

        Raises:
            QueueFull: as many jobs wait as the stream may hold.
        """
        ...

    async def open_jobs(self) -> set[str]:
        """Task ids of all jobs that wait or run."""
        ...

    async def become_restorer(self, name: str, lease_s: float) -> bool:
        """Whether this process may restore jobs for the time of the lease. One process gets it."""
        ...

    async def waiting_jobs(self, idle_s: float) -> tuple[str, list[WaitingJob]]:
        """Jobs that no consumer has claimed, or whose claim was not renewed for `idle_s`; and a cursor to wait from."""
        ...

    async def wait_for_job(self, after: str, block_s: float) -> None:
        """Return when a job was accepted after the cursor, or after `block_s`."""
        ...

    async def claim_job(self, consumer: str, entry_id: str, idle_s: float) -> Job | None:
        """Take a waiting job. None: it has ended, or another consumer was faster."""
        ...

    async def renew_job(self, consumer: str, job: Job, record: TaskRecord | None = None) -> None:
        """Keep the claim, so that no other consumer takes the job; write `record` in the same step.

        Raises:
            NotFound: the job ended or was taken over; nothing is written.
        """
        ...

    async def end_job(self, consumer: str, job: Job, record: TaskRecord, dead_reason: str = "") -> bool:
        """Write the last record and remove the job in one step; with a reason, keep it in the dead letters.

        False: the job had ended or was taken over; nothing is written. So the first end of a job is the only one.
        """
        ...

    async def cancel_job(self, record: TaskRecord) -> bool:
        """Write the record and remove the job of that task, also while somebody works on it. False: none is open."""
        ...

    async def append_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Append to the outcome stream (bounded) in one round trip."""
        ...

    async def read_outcomes(self, after: str, count: int, block_s: float) -> tuple[str, list[Outcome]]:
        """Outcomes after cursor `after` ("0" for all, "$" for new ones) and the cursor to go on from."""
        ...

    async def save_policy(self, name: str, snapshot: bytes) -> None:
        """Save a policy's learned state."""
        ...

    async def load_policy(self, name: str) -> bytes | None:
        """The last snapshot of that policy."""
        ...

    async def append_decisions(self, decisions: Sequence[DecisionRecord]) -> None:
        """Append to the decision log (bounded)."""
        ...

    async def decisions(self, count: int) -> list[DecisionRecord]:
        """The newest decisions, newest first."""
        ...

    async def close(self) -> None:
        """Drop the connections."""
        ...
