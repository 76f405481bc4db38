"""Decides, step by step, what the engine runs: which requests hold slots, and one prefill or one decode run at a time.

Iteration-level scheduling after Orca (OSDI 2022), with prompts cut into chunks between decode runs as in Sarathi-Serve
(arXiv 2403.02310); the CPU attention kernel takes several new tokens on top of a past for one row only, so a chunk is
a run of its own rather than part of a decode run. Pure: no clock, no session; the caller reports what was run.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass

from skyshore.engines.llm.kv_ledger import KvLedger, KvLimits, Move
from skyshore.engines.llm.sequence import Sequence
from skyshore.nodemodel.turns import chunks


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Compute tokens start..stop of a sequence in its slot."""

    sequence: Sequence
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Step:
    """Carry out `moves` in order, then run either `chunks`, one after the other, or one decode over `rows`."""

    moves: tuple[Move, ...] = ()
    chunks: tuple[PrefillChunk, ...] = ()
    rows: tuple[Sequence, ...] = ()
    """Row i is slot i; its input is its token number `computed`."""
    spare_length: int = 0
    """Tokens in the slot above the rows, behind which a padding row may write."""


class StepScheduler:
    """Holds waiting and running sequences; methods report events, `plan` returns decisions."""

    def __init__(self, limits: KvLimits) -> None:
        self._limits = limits
        self._ledger = KvLedger(limits)
        self._sequences: dict[int, Sequence] = {}
        self._waiting: list[Sequence] = []
        self._prefilling: list[Sequence] = []
        self._prefilled_last = False
        self.preemptions = 0

    @property
    def running(self) -> int:
        """Sequences that hold a slot."""
        return len(self._prefilling) + len(self._ledger.rows)

    @property
    def decoding(self) -> int:
        """Rows of the next decode run."""
        return len(self._ledger.rows)

    @property
    def prompts(self) -> int:
        """Prompts not yet computed that have a slot or could get one now."""
        seats = self._limits.running - self.running
        return len(self._prefilling) + min(len(self._waiting), seats)

    @property
    def queued(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._waiting)

    @property
    def kv_used(self) -> float:
        """Promised share of the cache budget."""
        return self._ledger.used_share

    @property
    def retained_prefixes(self) -> int:
        """Finished prompts still in the cache."""
        return self._ledger.retained_count

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._sequences

    # ------------------------------------------------------------------------------------------- what happened

    def add(self, sequence: Sequence) -> None:
        """Queue a new request."""
        self._sequences[sequence.request_id] = sequence
        insort(self._waiting, sequence, key=_rank)

    def advance(self, step: Step) -> None:
        """Record that `step` was run."""
        for chunk in step.chunks:
            chunk.sequence.computed = chunk.stop
        # Only now: a join may move any slot, and a move copies as many tokens as `computed` says.
        for chunk in step.chunks:
            if chunk.sequence.prefilled:
                self._prefilling.remove(chunk.sequence)
                self._ledger.join_rows(chunk.sequence)
        for sequence in step.rows:
            sequence.computed += 1

    def finish(self, request_id: int) -> None:
        """The answer is complete; its prompt stays in the cache while there is room."""
        self._remove(request_id, retain=True)

    def cancel(self, request_id: int) -> None:
        """Cancel a request; nothing happens for an id that has ended already."""
        if request_id in self._sequences:
            self._remove(request_id, retain=False)

    def expired(self, now_s: float) -> list[int]:
        """Requests whose deadline has passed, waiting or running."""
        return [each.request_id for each in self._sequences.values() if each.deadline_s <= now_s]

    def _remove(self, request_id: int, *, retain: bool) -> None:
        sequence = self._sequences.pop(request_id)
        if sequence.slot < 0:
            self._waiting.remove(sequence)
            return
        if sequence in self._prefilling:
            self._prefilling.remove(sequence)
        self._ledger.leave(sequence, retain=retain)

    # ------------------------------------------------------------------------------------------ what to do next

    def plan(self, chunk_tokens: int) -> Step:
        """The next step, of about `chunk_tokens` prompt tokens or one decode run: the two take turns."""
        self._admit()
        if self._prefilling and not (self._prefilled_last and self._ledger.rows):
            self._prefilled_last = True
            chunks = tuple(self._chunks(chunk_tokens))
            return Step(self._ledger.take_moves(), chunks=chunks)
        self._prefilled_last = False
        self._grow_rows()
        rows = tuple(self._ledger.rows)
        return Step(self._ledger.take_moves(), rows=rows, spare_length=self._ledger.spare_length)

    def _admit(self) -> None:
        """Give slots to the first sequences in rank while slots and cache last. No sequence overtakes a long prompt."""
        while self._waiting and self.running < self._limits.running:
            sequence = self._waiting[0]
            source, shared = self._ledger.best_prefix(sequence.tokens[: sequence.prompt_tokens])
            # One more than known: the run after the last chunk writes the first generated token.
            room = len(sequence.tokens) + 1
            if not self._ledger.reserve(sequence, room, keep=source):
                if not self._ledger.reserve(sequence, room):
                    return
                source, shared = None, 0  # its own prefix was evicted
            del self._waiting[0]
            self._ledger.seat(sequence, source, shared)
            if len(sequence.tokens) == sequence.prompt_tokens:
                sequence.cached_tokens = shared
            insort(self._prefilling, sequence, key=_rank)

    def _chunks(self, budget_tokens: int) -> Iterable[PrefillChunk]:
        """Chunks in order of rank."""
        rests = (sequence.prompt_tokens - sequence.computed for sequence in self._prefilling)
        for sequence, tokens in zip(self._prefilling, chunks(rests, budget_tokens), strict=False):
            yield PrefillChunk(sequence, sequence.computed, sequence.computed + tokens)

    def _grow_rows(self) -> None:
        """Reserve one more token for every row; if the cache is full, preempt the sequence of the last rank."""
        for sequence in sorted(self._ledger.rows, key=_rank):
            while sequence.slot >= 0 and not self._ledger.reserve(sequence, sequence.computed + 1):
                self._preempt(max((*self._ledger.rows, *self._prefilling), key=_rank))

    def _preempt(self, sequence: Sequence) -> None:
        """Release a sequence's cache. It keeps its tokens, and is computed again when it gets a slot."""
        if sequence in self._prefilling:
            self._prefilling.remove(sequence)
        self._ledger.leave(sequence, retain=False)
        sequence.computed = 0
        insort(self._waiting, sequence, key=_rank)
        self.preemptions += 1


def _rank(sequence: Sequence) -> tuple[int, float, int]:
    return sequence.rank
