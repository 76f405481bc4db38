"""Takes tasks to the engine of their arm and charges them their joules. The servicer translates; this does."""

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
class LlmOffer:
    """An arm and the engine that serves it."""

    arm: Arm
    engine: LlmEngine


@dataclass(frozen=True, slots=True)
class VideoOffer:
    """An arm and the engine that serves it. Arms that differ in encoding only share one engine."""

    arm: Arm
    engine: VideoEngine


@dataclass(frozen=True, slots=True)
class ClassifyOffer:
    """An arm and the engine that serves it; shared as `VideoOffer` says."""

    arm: Arm
    engine: ClipClassifierEngine


Offer = LlmOffer | VideoOffer | ClassifyOffer


class Desk:
    """Fills the `WorkerClient` port inside the node itself."""

    def __init__(self, node_id: str, offers: Sequence[Offer], meter: EnergyMeter, idle_watts: float) -> None:
        self.draining = False
        self._node_id = node_id
        self._offers: Mapping[str, Offer] = {offer.arm.arm_id: offer for offer in offers}
        self._engines = list({id(offer.engine): offer.engine for offer in offers}.values())
        self._meter = meter
        self._joules_counter = telemetry.JOULES.labels(meter.source)
        now_s, joules = time.monotonic(), meter.joules()
        self._ledger = EnergyLedger(idle_watts, {_lane(o): o.arm.slots for o in offers}, now_s, joules)
        self._reported_s, self._reported_joules, self._watts = now_s, joules, idle_watts

    async def execute(self, task: Task, arm_id: str, request: LlmInput) -> AsyncIterator[TokenChunk | WorkerOutcome]:
        """See `WorkerClient`.

        Raises:
            NotFound: no such arm on this node.
            NodeUnavailable: the node is draining.
            InvalidTask: the arm serves another kind of task.
        """
        offer = self._offer(arm_id)
        if not isinstance(offer, LlmOffer):
            raise InvalidTask(f"arm '{arm_id}' serves {offer.arm.kind}, not llm", param="arm_id")
        events = cast("AsyncGenerator[TokenChunk | WorkerOutcome]", offer.engine.generate(task, request))
        async with aclosing(self._charged(offer, events)) as charged:
            async for event in charged:
                yield event

    async def execute_segment(
        self, task: Task, arm_id: str, info: SegmentInfo, frames: AsyncIterator[EncodedFrame]
    ) -> AsyncIterator[SegmentEvent]:
        """See `WorkerClient`; raises what `execute` raises."""
        offer = self._offer(arm_id)
        if isinstance(offer, LlmOffer) or offer.arm.kind is not task.kind:
            raise InvalidTask(f"arm '{arm_id}' serves {offer.arm.kind}, not {task.kind}", param="arm_id")
        info = replace(info, arm_id=arm_id)
        work = offer.engine.detect if isinstance(offer, VideoOffer) else offer.engine.classify
        events = cast("AsyncGenerator[SegmentEvent]", work(task, info, frames))
        async with aclosing(self._charged(offer, events)) as charged:
            async for event in charged:
                yield event

    def report(self) -> NodeStatus:
        """What the next heartbeat says. Power is the mean since the report before."""
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

    def _offer(self, arm_id: str) -> Offer:
        if self.draining:
            raise NodeUnavailable(f"node '{self._node_id}' is stopping; place the task on another node")
        offer = self._offers.get(arm_id)
        if offer is None:
            raise NotFound(
                f"node '{self._node_id}' has no arm '{arm_id}'; it has {', '.join(self._offers)}", param="arm_id"
            )
        return offer

    async def _charged(self, offer: Offer, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        account: Account | None = self._ledger.open(time.monotonic(), self._meter.joules(), _lane(offer))
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, WorkerOutcome) and account is not None:
                        paid, account = account, None
                        yield self._settle(paid, event)
                    else:
                        yield event
        finally:
            if account is not None:
                self._ledger.close(time.monotonic(), self._meter.joules(), account)

    def _settle(self, account: Account, outcome: WorkerOutcome) -> WorkerOutcome:
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


def _lane(offer: Offer) -> str:
    return str(id(offer.engine))
