"""Which sequence holds which cache slot, and how much cache is reserved. Pure: it returns the moves to carry out.

Slots 0..rows-1 are the rows of the next decode run and have no holes, for one run covers a contiguous range of slots.
Above them are prompts being prefilled and retained prefixes. There is one slot more than both can fill, so a move
always has somewhere to go.

Memory that a resident leaves stays allocated for the next one, because the first write to a new page is slow. It is
released only when the budget is needed elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skyshore.engines.llm.sequence import Resident, Sequence


@dataclass(frozen=True, slots=True)
class CopySlot:
    """Copy the first `tokens` tokens of one slot to another."""

    source: int
    target: int
    tokens: int


@dataclass(frozen=True, slots=True)
class ReleaseSlot:
    """Release the memory of tokens keep..used of a slot."""

    slot: int
    keep_tokens: int
    used_tokens: int


Move = CopySlot | ReleaseSlot


@dataclass(frozen=True, slots=True)
class KvLimits:
    """Size of the cache."""

    running: int
    """Sequences that may occupy slots at the same time."""
    prefixes: int
    """Finished prompts kept for reuse."""
    budget_tokens: int
    """Cache for all of them together."""
    granule_tokens: int
    """Memory is taken in steps of this many tokens."""
    min_prefix_tokens: int = 32
    """Shorter common prefixes are not copied."""

    @property
    def slots(self) -> int:
        """Slots the cache memory must have."""
        return self.running + self.prefixes + 1


class KvLedger:
    """Places residents in slots within the budget."""

    def __init__(self, limits: KvLimits) -> None:
        self._limits = limits
        self._holders: list[Resident | None] = [None] * limits.slots
        self._retained: list[Resident] = []  # least recently used first
        self._reserved_tokens = 0
        self._backed_tokens = [0] * limits.slots
        """By slot, the memory that is allocated, in use or not; at most the budget in total."""
        self._moves: list[Move] = []
        self.rows: list[Sequence] = []
        """The decode batch: `rows[i]` occupies slot i."""

    @property
    def used_share(self) -> float:
        """Reserved share of the budget, 0..1. Retained prefixes do not count: any request may evict them."""
        retained = sum(prefix.reserved_tokens for prefix in self._retained)
        return (self._reserved_tokens - retained) / self._limits.budget_tokens

    @property
    def spare_length(self) -> int:
        """Tokens in the slot just above the decode batch: a padding row must write behind them."""
        holder = self._holders[len(self.rows)]
        return holder.computed if holder else 0

    @property
    def retained_count(self) -> int:
        """Prefixes kept."""
        return len(self._retained)

    def take_moves(self) -> tuple[Move, ...]:
        """The moves to carry out, in order, before the next run."""
        moves, self._moves = tuple(self._moves), []
        return moves

    # ------------------------------------------------------------------------------------------------ memory

    def reserve(self, resident: Resident, tokens: int, keep: Resident | None = None) -> bool:
        """Reserve cache for `tokens` tokens; evict retained prefixes (never `keep`) if necessary."""
        granule = self._limits.granule_tokens
        wanted = -(-tokens // granule) * granule
        extra = wanted - resident.reserved_tokens
        if extra <= 0:
            return True
        if self._reserved_tokens + extra > self._limits.budget_tokens:
            self._evict(self._reserved_tokens + extra - self._limits.budget_tokens, keep)
        if self._reserved_tokens + extra > self._limits.budget_tokens:
            return False
        resident.reserved_tokens = wanted
        self._reserved_tokens += extra
        if resident.slot >= 0:
            self._back(resident)
        return True

    def _back(self, resident: Resident) -> None:
        """Count a slot's memory as allocated; release what other slots no longer use if the budget is exceeded."""
        backed = self._backed_tokens
        backed[resident.slot] = max(backed[resident.slot], resident.reserved_tokens)
        excess = sum(backed) - self._limits.budget_tokens
        for slot in range(len(backed) - 1, -1, -1):  # the low ones are taken again first
            if excess <= 0:
                return
            holder = self._holders[slot]
            keep = max(holder.reserved_tokens if holder else 0, backed[slot] - excess)
            if keep < backed[slot]:
                self._moves.append(ReleaseSlot(slot, keep, backed[slot]))
                excess -= backed[slot] - keep
                backed[slot] = keep

    def _evict(self, tokens: int, keep: Resident | None) -> None:
        """Drop least recently used prefixes until `tokens` are free, but none if that cannot be reached."""
        candidates = [prefix for prefix in self._retained if prefix is not keep]
        if sum(prefix.reserved_tokens for prefix in candidates) < tokens:
            return
        for prefix in candidates:
            if tokens <= 0:
                return
            tokens -= prefix.reserved_tokens
            self._drop(prefix)

    def _drop(self, prefix: Resident) -> None:
        self._retained.remove(prefix)
        self._vacate(prefix)

    def _vacate(self, resident: Resident) -> None:
        self._holders[resident.slot] = None
        self._reserved_tokens -= resident.reserved_tokens
        resident.slot, resident.reserved_tokens = -1, 0

    # ------------------------------------------------------------------------------------------------- slots

    def seat(self, sequence: Sequence, source: Resident | None, shared_tokens: int) -> None:
        """Give a sequence with reserved cache a slot, filled with what it shares with `source`."""
        sequence.slot = self._free_slot()
        self._holders[sequence.slot] = sequence
        self._back(sequence)
        if source is not None and shared_tokens:
            self._moves.append(CopySlot(source.slot, sequence.slot, shared_tokens))
            if source in self._retained:
                self._retained.remove(source)
                self._retained.append(source)
        sequence.computed = shared_tokens

    def join_rows(self, sequence: Sequence) -> None:
        """Make a prefilled sequence the last row of the decode batch."""
        target = len(self.rows)
        occupant = self._holders[target]
        if occupant is not None and occupant is not sequence:
            self._move(occupant, self._free_slot())
        if sequence.slot != target:
            self._move(sequence, target)
        self.rows.append(sequence)

    def leave(self, sequence: Sequence, *, retain: bool) -> None:
        """Take a sequence off its slot; `retain` keeps its prompt for others."""
        prefix = self._prefix_of(sequence) if retain else None
        in_rows = sequence.slot < len(self.rows) and self.rows[sequence.slot] is sequence
        hole = sequence.slot
        self._hand_over(sequence, prefix)
        if not in_rows:
            return
        last = self.rows.pop()
        if last is sequence:
            return
        if prefix is not None:
            self._move(prefix, self._free_slot())
        self._move(last, hole)
        self.rows[hole] = last

    def _hand_over(self, sequence: Sequence, prefix: Resident | None) -> None:
        """Leave the slot to `prefix`, or empty it."""
        if prefix is None:
            self._vacate(sequence)
            return
        granule = self._limits.granule_tokens
        prefix.slot = sequence.slot
        prefix.reserved_tokens = -(-prefix.computed // granule) * granule
        self._holders[prefix.slot] = prefix
        self._reserved_tokens -= sequence.reserved_tokens - prefix.reserved_tokens
        sequence.slot, sequence.reserved_tokens = -1, 0
        self._retained.append(prefix)

    def _prefix_of(self, sequence: Sequence) -> Resident | None:
        """The part of a leaving sequence to keep, after older prefixes were evicted."""
        length = sequence.shareable_tokens
        if length < self._limits.min_prefix_tokens or not self._limits.prefixes:
            return None
        prefix = Resident(sequence.tokens[:length], computed=length)
        for other in tuple(self._retained):
            common = common_prefix(prefix.tokens, other.tokens)
            if common == length:
                self._retained.remove(other)
                self._retained.append(other)
                return None
            if common == len(other.tokens):
                self._drop(other)
        while len(self._retained) >= self._limits.prefixes:
            self._drop(self._retained[0])
        return prefix

    def _move(self, resident: Resident, target: int) -> None:
        source = resident.slot
        if resident.computed:
            self._moves.append(CopySlot(source, target, resident.computed))
        self._holders[source], self._holders[target] = None, resident
        resident.slot = target
        self._back(resident)

    def _free_slot(self) -> int:
        """The lowest free slot above the decode batch: most likely the one that a joining sequence gets."""
        return next(slot for slot in range(len(self.rows), len(self._holders)) if self._holders[slot] is None)

    # ---------------------------------------------------------------------------------------------- prefixes

    def best_prefix(self, tokens: list[int]) -> tuple[Resident | None, int]:
        """The resident with the longest common prefix, and how many tokens to copy; at least one is computed."""
        best: Resident | None = None
        longest = self._limits.min_prefix_tokens - 1
        for resident, limit in self._sources():
            common = min(common_prefix(tokens, resident.tokens), limit, len(tokens) - 1)
            if common > longest:
                best, longest = resident, common
        return (best, longest) if best else (None, 0)

    def _sources(self) -> Iterator[tuple[Resident, int]]:
        for holder in self._holders:
            if isinstance(holder, Sequence):
                yield holder, holder.shareable_tokens
            elif holder is not None:
                yield holder, holder.computed


def common_prefix(left: list[int], right: list[int]) -> int:
    """Number of leading tokens that two lists share."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    differing = np.asarray(left[:length]) != np.asarray(right[:length])
    return int(differing.argmax())
