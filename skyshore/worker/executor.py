"""Runs tasks on the engine of their arm and charges their joules to them. The servicer only translates."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from skyshore.domain.errors import InvalidTask, NodeUnavailable, NotFound
from skyshore.domain.llm import LlmInput, TokenChunk
from skyshore.domain.node import Arm, NodeStatus
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task
from skyshore.domain.video import EncodedFrame, SegmentEvent, SegmentInfo
from skyshore.nodemodel.energy import Account, EnergyLedger
from skyshore.ports import ClipClassifierEngine, EnergyMeter, LlmEngine, VideoEngine
from skyshore.runtime import telemetry

Event = TypeVar("Event", TokenChunk | WorkerOutcome, SegmentEvent)


@dataclass(frozen=True, slots=True)
class ServedLlm:
    """An arm and the engine that serves it."""

    arm: Arm
    engine: LlmEngine


@dataclass(frozen=True, slots=True)
class ServedDetector:
    """An arm and the engine that serves it. Arms that differ only in their encoding share one engine."""

    arm: Arm
    engine: VideoEngine


@dataclass(frozen=True, slots=True)
class ServedClassifier:
    """An arm and the engine that serves it; see `ServedDetector`."""

    arm: Arm
    engine: ClipClassifierEngine


ServedArm = ServedLlm | ServedDetector | ServedClassifier


class WorkerExecutor:
    """Runs the tasks of one node. It has the methods of the `WorkerClient` port, inside the node itself."""

    def __init__(self, node_id: str, served_arms: Sequence[ServedArm], meter: EnergyMeter, idle_watts: float) -> None:
        """`meter` reads the energy of the whole node; `idle_watts` is its power when nothing runs."""
        self.draining = False
        self._node_id = node_id
        self._by_arm_id: Mapping[str, ServedArm] = {served.arm.arm_id: served for served in served_arms}
        self._engines = list({id(served.engine): served.engine for served in served_arms}.values())
        self._meter = meter
        self._joules_counter = telemetry.JOULES.labels(meter.source)
        now_s, joules = time.monotonic(), meter.joules()
        self._ledger = EnergyLedger(idle_watts, {_engine_key(o): o.arm.slots for o in served_arms}, now_s, joules)
        self._reported_s, self._reported_joules, self._watts = now_s, joules, idle_watts

    def execute(self, task: Task, arm_id: str, request: LlmInput) -> AsyncGenerator[TokenChunk | WorkerOutcome]:
        """Run an LLM task; see `WorkerClient`. Close the generator to cancel the task.

        Raises:
            NotFound: no such arm on this node.
            NodeUnavailable: the node is draining.
            InvalidTask: the arm serves another kind of task.
        """
        served = self._find(arm_id)
        if not isinstance(served, ServedLlm):
            raise InvalidTask(f"arm '{arm_id}' serves {served.arm.kind}, not llm", param="arm_id")
        events = cast("AsyncGenerator[TokenChunk | WorkerOutcome]", served.engine.generate(task, request))
        return self._charged(served, events)

    def execute_segment(
        self, task: Task, arm_id: str, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncGenerator[SegmentEvent]:
        """Run a video task; see `WorkerClient`. Raises what `execute` raises."""
        served = self._find(arm_id)
        if isinstance(served, ServedLlm) or served.arm.kind is not task.kind:
            raise InvalidTask(f"arm '{arm_id}' serves {served.arm.kind}, not {task.kind}", param="arm_id")
        info = replace(info, arm_id=arm_id)
        work = served.engine.detect if isinstance(served, ServedDetector) else served.engine.classify
        return self._charged(served, cast("AsyncGenerator[SegmentEvent]", work(task, info, frames)))

    def report(self) -> NodeStatus:
        """The status for the next heartbeat. `power_watts` is the mean since the previous report."""
        loads = [engine.load() for engine in self._engines]
        now_s, joules = time.monotonic(), self._meter.joules()
        self._ledger.observe(now_s, joules)
        if now_s - self._reported_s > 0.1:
            self._watts = (joules - self._reported_joules) / (now_s - self._reported_s)
            self._reported_s, self._reported_joules = now_s, joules
        status = NodeStatus(
            node_id=self._node_id,
            running=sum(load.running for load in loads),
            queued=sum(load.queued for load in loads),
            capacity=sum(load.capacity for load in loads),
            kv_used=max(load.kv_used for load in loads),
            decode_batch=max(load.decode_batch for load in loads),
            tokens_per_s=sum(load.tokens_per_s for load in loads),
            power_watts=self._watts,
            draining=self.draining,
        )
        telemetry.RUNNING.set(status.running)
        telemetry.QUEUED.set(status.queued)
        telemetry.KV_USED.set(status.kv_used)
        telemetry.DECODE_BATCH.set(status.decode_batch)
        return status

    async def close(self) -> None:
        """Close the engines, each once."""
        for engine in self._engines:
            await engine.close()

    def _find(self, arm_id: str) -> ServedArm:
        if self.draining:
            raise NodeUnavailable(f"node '{self._node_id}' is stopping; place the task on another node")
        served = self._by_arm_id.get(arm_id)
        if served is None:
            raise NotFound(
                f"node '{self._node_id}' has no arm '{arm_id}'; it has {', '.join(self._by_arm_id)}", param="arm_id"
            )
        return served

    async def _charged(self, served: ServedArm, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """The events of an engine, with the joules of the task written into the outcome."""
        account: Account | None = self._ledger.open(time.monotonic(), self._meter.joules(), _engine_key(served))
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, WorkerOutcome) and account is not None:
                        closing, account = account, None
                        yield self._with_joules(closing, event)
                    else:
                        yield event
        finally:
            if account is not None:
                self._ledger.close(time.monotonic(), self._meter.joules(), account)

    def _with_joules(self, account: Account, outcome: WorkerOutcome) -> WorkerOutcome:
        charge = self._ledger.close(time.monotonic(), self._meter.joules(), account)
        telemetry.TOKENS.inc(outcome.output_tokens)
        telemetry.FRAMES.inc(outcome.frames)
        self._joules_counter.inc(charge.inference_joules + charge.idle_joules)
        return replace(
            outcome,
            inference_joules=charge.inference_joules,
            idle_joules=charge.idle_joules,
            energy_source=self._meter.source,
        )


def _engine_key(served: ServedArm) -> str:
    return str(id(served.engine))
