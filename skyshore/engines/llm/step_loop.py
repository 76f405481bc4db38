"""The engine thread: it runs what the step scheduler plans, samples tokens and reports them once per step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import structlog
from numpy.typing import NDArray

from skyshore.domain.errors import DeadlineExceeded, Internal, NodeUnavailable, SkyshoreError
from skyshore.domain.llm import TokenChunk
from skyshore.domain.outcome import WorkerOutcome
from skyshore.engines.llm.costs import StepCosts
from skyshore.engines.llm.decoder import Decoder, StepOutput
from skyshore.engines.llm.generation import Generation
from skyshore.engines.llm.kv_ledger import CopySlot
from skyshore.engines.llm.sampling import sample
from skyshore.engines.llm.scheduler import Step, StepScheduler
from skyshore.engines.llm.sequence import Sequence

_log = structlog.get_logger(__name__)

Item = TokenChunk | WorkerOutcome | SkyshoreError
"""What a request is sent; an outcome or an error is its last."""


@dataclass(slots=True)
class StepReport:
    """What one step did, for the requests it concerns and for the engine's load figures."""

    now_s: float
    items: list[tuple[int, Item]] = field(default_factory=list)
    """(request id, item) in order."""
    decode_rows: int = 0
    tokens: int = 0
    """Generated in this step."""
    running: int = 0
    queued: int = 0
    kv_used: float = 0.0


class StepLoop:
    """Owns decoder and scheduler; `submit`, `cancel` and `stop` may be called from any thread."""

    def __init__(
        self,
        decoder: Decoder,
        scheduler: StepScheduler,
        costs: StepCosts,
        *,
        report: Callable[[StepReport], None],
        clock: Callable[[], float],
    ) -> None:
        """`report` is called on the engine thread after every step that has something to say."""
        self._decoder = decoder
        self._scheduler = scheduler
        self._costs = costs
        self._report_to = report
        self._clock = clock
        self._generations: dict[int, Generation] = {}
        self._wake = threading.Condition()
        self._arrivals: list[Generation] = []
        self._cancelled: list[int] = []
        self._stopping = False
        self._report = StepReport(0.0)
        self._thread = threading.Thread(target=self._run, name="llm-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, generation: Generation) -> None:
        """Queue a request; it is looked at before the next step.

        Raises:
            NodeUnavailable: the thread has ended.
        """
        with self._wake:
            if self._stopping:
                raise NodeUnavailable("the engine has stopped; ask another node")
            self._arrivals.append(generation)
            self._wake.notify()

    def cancel(self, request_id: int) -> None:
        """Free a request's slot before the next step."""
        with self._wake:
            self._cancelled.append(request_id)
            self._wake.notify()

    def stop(self) -> None:
        """End after the running step; open requests fail with `NodeUnavailable`. Blocks until the thread is gone."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    # ------------------------------------------------------------------------------------- on the engine thread

    def _run(self) -> None:
        try:
            while self._take_commands():
                self._step()
        except Exception as error:  # no request may wait for a thread that ended
            _log.exception("llm engine failed")
            self._fail_all(Internal, f"the engine failed ({error}); restart the node")
            return
        self._fail_all(NodeUnavailable, "the engine was closed; ask another node")

    def _take_commands(self) -> bool:
        """Wait for work, take in arrivals and cancellations; false when the engine is to end."""
        with self._wake:
            self._wake.wait_for(self._has_work)
            if self._stopping:
                return False
            arrivals, self._arrivals = self._arrivals, []
            cancelled, self._cancelled = self._cancelled, []
        for generation in arrivals:
            self._generations[generation.sequence.request_id] = generation
            self._scheduler.add(generation.sequence)
        for request_id in cancelled:
            self._scheduler.cancel(request_id)
            self._generations.pop(request_id, None)
        return True

    def _has_work(self) -> bool:
        return bool(self._stopping or self._arrivals or self._cancelled or self._generations)

    def _step(self) -> None:
        now_s = self._clock()
        self._report = StepReport(now_s)
        for request_id in self._scheduler.expired(now_s):
            self._fail(request_id, DeadlineExceeded("the deadline passed before the answer was complete"))
        step = self._scheduler.plan(self._costs.chunk_tokens(self._scheduler.decoding, self._scheduler.prompts))
        self._carry_out_moves(step)
        if step.chunks:
            self._prefill(step, now_s)
        elif step.rows:
            self._decode(step, now_s)
        self._send_report()

    def _carry_out_moves(self, step: Step) -> None:
        kv = self._decoder.kv
        for move in step.moves:
            if isinstance(move, CopySlot):
                kv.copy(move.source, move.target, 0, move.tokens)
            else:
                kv.release(move.slot, move.keep_tokens, move.used_tokens)

    def _prefill(self, step: Step, start_s: float) -> None:
        finished: list[tuple[Generation, int, StepOutput]] = []
        for chunk in step.chunks:
            generation = self._generations[chunk.sequence.request_id]
            generation.timing.seated_s = generation.timing.seated_s or start_s
            tokens = chunk.sequence.tokens[chunk.start : chunk.stop]
            output = self._decoder.extend(chunk.sequence.slot, tokens, chunk.start)
            if chunk.stop == len(chunk.sequence.tokens):
                finished.append((generation, int(_draw(output, [(0, generation)])[0]), output))
        self._costs.prefilled(sum(chunk.stop - chunk.start for chunk in step.chunks), self._clock() - start_s)
        self._scheduler.advance(step)
        for generation, token, output in finished:
            generation.timing.first_token_s = self._clock()
            self._accept(generation, token, output, 0)

    def _decode(self, step: Step, start_s: float) -> None:
        inputs = [sequence.tokens[sequence.computed] for sequence in step.rows]
        lengths = [sequence.computed for sequence in step.rows]
        output = self._decoder.decode(inputs, lengths, step.spare_length)
        self._costs.decoded(self._clock() - start_s)
        self._scheduler.advance(step)
        self._report.decode_rows = len(step.rows)
        self._take_tokens(step.rows, output)

    def _take_tokens(self, rows: tuple[Sequence, ...], output: StepOutput) -> None:
        """Sample for the rows whose known tokens are all computed; after a preemption the others only recompute."""
        waiting = [(index, self._generations[row.request_id]) for index, row in enumerate(rows) if row.wants_token]
        tokens = _draw(output, waiting)
        for index, generation in waiting:
            self._accept(generation, int(tokens[index]), output, index)

    def _accept(self, generation: Generation, token: int, output: StepOutput, row: int) -> None:
        request_id = generation.sequence.request_id
        self._report.tokens += 1
        try:
            chunk = generation.accept(token, output.logits[row])
        except SkyshoreError as error:
            self._fail(request_id, error)
            return
        if chunk is not None:
            self._report.items.append((request_id, chunk))
        if generation.finish_reason is not None:
            self._report.items.append((request_id, generation.outcome(self._clock())))
            self._scheduler.finish(request_id)
            del self._generations[request_id]

    def _fail(self, request_id: int, error: SkyshoreError) -> None:
        self._report.items.append((request_id, error))
        self._scheduler.cancel(request_id)
        del self._generations[request_id]

    def _fail_all(self, kind: type[SkyshoreError], message: str) -> None:
        with self._wake:
            self._stopping = True
            lost = [*self._generations, *(each.sequence.request_id for each in self._arrivals)]
        self._report = StepReport(self._clock(), items=[(request_id, kind(message)) for request_id in lost])
        self._report_to(self._report)

    def _send_report(self) -> None:
        report = self._report
        report.running = self._scheduler.running
        report.queued = self._scheduler.queued
        report.kv_used = self._scheduler.kv_used
        self._report_to(report)


def _draw(output: StepOutput, rows: list[tuple[int, Generation]]) -> NDArray[np.int64]:
    """A token for each of the given (row, request) pairs, at the row's place; other places mean nothing."""
    tokens = output.greedy.copy()
    special = [(index, generation) for index, generation in rows if generation.needs_logits]
    if special:
        indices = [index for index, _ in special]
        masks = [generation.constraint.mask() if generation.constraint else None for _, generation in special]
        tokens[indices] = sample(output.logits[indices], [generation.sampler for _, generation in special], masks)
    return tokens
