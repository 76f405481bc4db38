"""The step scheduler against a cache that is simulated symbolically: every slot is the list of tokens written to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.engines.llm.kv_ledger import CopySlot, KvLimits, common_prefix
from skyshore.engines.llm.scheduler import Step, StepScheduler
from skyshore.engines.llm.sequence import Sequence

NEVER_S = 1e9
GRANULE = 4
PADDING = -1


def sequence(
    request_id: int, prompt: list[int], *, priority: int = 0, deadline_s: float = NEVER_S, arrival: int | None = None
) -> Sequence:
    return Sequence(
        tokens=list(prompt),
        request_id=request_id,
        prompt_tokens=len(prompt),
        priority=priority,
        deadline_s=deadline_s,
        arrival=request_id if arrival is None else arrival,
    )


def limits(*, running: int = 3, prefixes: int = 2, budget: int = 64, min_prefix: int = 4) -> KvLimits:
    return KvLimits(running, prefixes, budget, GRANULE, min_prefix)


@dataclass
class SymbolicEngine:
    """Carries out steps as the real engine does, and checks that every run reads exactly what it must."""

    limits: KvLimits
    scheduler: StepScheduler = field(init=False)
    slots: list[list[int]] = field(init=False)
    backed: list[int] = field(init=False)
    """Tokens of each slot that memory was touched for since it was last given back."""
    wanted: dict[int, int] = field(default_factory=dict)
    finished: list[int] = field(default_factory=list)
    open: dict[int, Sequence] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        self.scheduler = StepScheduler(self.limits)
        self.slots = [[] for _ in range(self.limits.slots)]
        self.backed = [0] * self.limits.slots

    def add(self, new: Sequence, output_tokens: int) -> None:
        self.wanted[new.request_id] = output_tokens
        self.open[new.request_id] = new
        self.scheduler.add(new)

    def cancel(self, request_id: int) -> None:
        self.scheduler.cancel(request_id)
        self.open.pop(request_id, None)

    def step(self, chunk_tokens: int = 5) -> Step:
        step = self.scheduler.plan(chunk_tokens)
        self.steps += 1
        self.carry_out_moves(step)
        for chunk in step.chunks:
            slot = self.slots[chunk.sequence.slot]
            assert slot[: chunk.start] == chunk.sequence.tokens[: chunk.start]
            slot[chunk.start :] = chunk.sequence.tokens[chunk.start : chunk.stop]
            if (chunk.stop - chunk.start) % 2:
                slot.append(PADDING)
        for row, each in enumerate(step.rows):
            assert each.slot == row
            assert self.slots[row][: each.computed] == each.tokens[: each.computed]
            self.slots[row][each.computed :] = [each.tokens[each.computed]]
        assert len(step.rows) <= self.limits.running
        assert sum(chunk.stop - chunk.start for chunk in step.chunks) <= chunk_tokens * 1.25
        if len(step.rows) % 2:
            self.slots[len(step.rows)][step.spare_length :] = [PADDING]
        self.check_memory()
        self.scheduler.advance(step)
        self.generate(step)
        return step

    def carry_out_moves(self, step: Step) -> None:
        for move in step.moves:
            self.touch()
            if isinstance(move, CopySlot):
                source = self.slots[move.source][: move.tokens]
                assert len(source) == move.tokens, "copies more than the slot holds"
                self.slots[move.target] = list(source)
            else:
                assert move.used_tokens % GRANULE == move.keep_tokens % GRANULE == 0
                del self.slots[move.slot][move.keep_tokens :]
                # What padding touched behind the promised part may stay: `check_memory` allows a page for it.
                if self.backed[move.slot] <= move.used_tokens + GRANULE:
                    self.backed[move.slot] = min(self.backed[move.slot], move.keep_tokens)

    def touch(self) -> None:
        for index, slot in enumerate(self.slots):
            self.backed[index] = max(self.backed[index], -(-len(slot) // GRANULE) * GRANULE)

    def check_memory(self) -> None:
        self.touch()
        pages = sum(self.backed)
        padding = GRANULE * self.limits.running  # the page that a padding row may touch in each slot above the batch
        assert pages <= self.limits.budget_tokens + padding
        assert self.scheduler.kv_used <= 1

    def generate(self, step: Step) -> None:
        for each in [chunk.sequence for chunk in step.chunks] + list(step.rows):
            if not each.wants_token:
                continue
            each.tokens.append(1000 + each.request_id * 100 + len(each.tokens))
            if len(each.tokens) - each.prompt_tokens == self.wanted[each.request_id]:
                self.finished.append(each.request_id)
                self.scheduler.finish(each.request_id)
                del self.open[each.request_id]

    def run_to_the_end(self, most: int = 3000) -> None:
        while self.open:
            assert self.steps < most, "requests starve"
            self.step()


def test_answers_of_different_length_share_decode_runs_and_leave_no_holes() -> None:
    engine = SymbolicEngine(limits())
    for request_id, output in ((0, 9), (1, 2), (2, 5)):
        engine.add(sequence(request_id, [request_id] * 3), output)
    widths = [len(engine.step(chunk_tokens=9).rows) for _ in range(10)]
    assert widths[:2] == [0, 3]
    assert engine.finished == [1, 2, 0]
    assert widths[2:5] == [2, 2, 2]
    assert widths[5:9] == [1, 1, 1, 1]


def test_a_long_prompt_lets_running_answers_go_on_between_its_chunks() -> None:
    engine = SymbolicEngine(limits(budget=200))
    engine.add(sequence(0, [7] * 4), 50)
    engine.step()
    engine.add(sequence(1, list(range(100, 140))), 1)
    kinds = ["chunk" if engine.step(chunk_tokens=5).chunks else "decode" for _ in range(16)]
    assert kinds == ["decode", "chunk"] * 8


def test_priority_then_deadline_then_arrival_decide_who_is_seated() -> None:
    engine = SymbolicEngine(limits(running=1))
    engine.add(sequence(0, [1, 2]), 3)
    engine.step()
    engine.add(sequence(1, [1, 2], priority=0, deadline_s=50), 1)
    engine.add(sequence(2, [1, 2], priority=2, deadline_s=90), 1)
    engine.add(sequence(3, [1, 2], priority=2, deadline_s=80), 1)
    engine.add(sequence(4, [1, 2], priority=2, deadline_s=80), 1)
    engine.run_to_the_end()
    assert engine.finished == [0, 3, 4, 2, 1]


def test_cancelling_frees_the_slot_for_the_very_next_step() -> None:
    engine = SymbolicEngine(limits(running=1))
    engine.add(sequence(0, [1, 2]), 100)
    engine.add(sequence(1, [3, 4]), 1)
    engine.step()
    engine.step()
    assert (engine.scheduler.running, engine.scheduler.queued) == (1, 1)
    engine.cancel(0)
    assert engine.scheduler.running == 0
    assert [chunk.sequence.request_id for chunk in engine.step().chunks] == [1]


def test_expired_names_waiting_and_running_requests() -> None:
    engine = SymbolicEngine(limits(running=1))
    engine.add(sequence(0, [1], deadline_s=10), 9)
    engine.add(sequence(1, [1], deadline_s=20), 9)
    engine.step()
    assert engine.scheduler.expired(9.9) == []
    assert engine.scheduler.expired(10.0) == [0]
    assert sorted(engine.scheduler.expired(25.0)) == [0, 1]


def test_a_shared_prefix_is_copied_not_computed() -> None:
    engine = SymbolicEngine(limits(budget=200, min_prefix=4))
    shared = list(range(50, 70))
    engine.add(sequence(0, [*shared, 1, 2]), 2)
    engine.run_to_the_end()
    second = sequence(1, [*shared, 3, 4, 5])
    engine.add(second, 2)
    step = engine.step(chunk_tokens=50)
    assert second.cached_tokens == 20
    assert [(chunk.start, chunk.stop) for chunk in step.chunks] == [(20, 23)]
    same = sequence(2, [*shared, 3, 4, 5])
    engine.add(same, 1)
    engine.step()
    engine.step(chunk_tokens=50)
    assert same.cached_tokens == 22, "one token of the prompt must be computed to have logits"


def test_generated_tokens_are_not_shared() -> None:
    engine = SymbolicEngine(limits(budget=200, min_prefix=4))
    first = sequence(0, [1, 2, 3, 4, 5])
    engine.add(first, 10)
    engine.run_to_the_end()
    follow_up = sequence(1, [*first.tokens, 9])
    engine.add(follow_up, 1)
    engine.step()
    assert follow_up.cached_tokens == 5


def test_prefixes_make_way_for_requests_and_the_least_recently_used_goes_first() -> None:
    engine = SymbolicEngine(limits(running=1, prefixes=2, budget=32, min_prefix=4))
    for request_id, token in ((0, 10), (1, 20)):
        engine.add(sequence(request_id, [token] * 8), 1)
        engine.run_to_the_end()
    assert engine.scheduler.retained_prefixes == 2
    again = sequence(2, [10] * 8 + [11])
    engine.add(again, 1)
    engine.step()
    assert again.cached_tokens == 8
    engine.run_to_the_end()
    big = sequence(3, [30] * 15)
    engine.add(big, 1)
    engine.run_to_the_end()
    reuse = sequence(4, [10] * 8 + [12])
    engine.add(reuse, 1)
    engine.step()
    assert reuse.cached_tokens == 8, "the prefix used last was dropped before the one used first"


def test_when_memory_is_short_the_last_in_rank_starts_over_and_all_finish() -> None:
    engine = SymbolicEngine(limits(running=3, prefixes=0, budget=40))
    for request_id in range(3):
        engine.add(sequence(request_id, [request_id] * 6), 25)
    engine.run_to_the_end()
    assert engine.scheduler.preemptions > 0
    assert engine.finished[0] == 0, "the first in rank is never preempted"
    assert sorted(engine.finished) == [0, 1, 2]


def test_a_prefix_as_long_as_the_budget_does_not_block_its_own_reuse() -> None:
    engine = SymbolicEngine(limits(running=1, prefixes=2, budget=32, min_prefix=4))
    engine.add(sequence(0, [5] * 28), 1)
    engine.run_to_the_end()
    engine.add(sequence(1, [5] * 28 + [6]), 2)
    engine.run_to_the_end(most=50)
    assert engine.finished == [0, 1]


@pytest.mark.parametrize(
    ("left", "right", "length"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 9, 3], [1, 2, 3], 1), ([4], [5], 0)]
)
def test_common_prefix(left: list[int], right: list[int], length: int) -> None:
    assert common_prefix(left, right) == length


PROMPT = st.tuples(st.integers(0, 2), st.integers(1, 24), st.integers(0, 5))
ARRIVAL = st.tuples(st.just("add"), PROMPT, st.integers(1, 12), st.integers(0, 2))
EVENT = st.one_of(
    ARRIVAL,
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("step"), st.integers(1, 9)),
    st.tuples(st.just("step"), st.integers(1, 9)),
)


@settings(max_examples=400, deadline=None)
@given(
    events=st.lists(EVENT, max_size=60),
    running=st.integers(1, 4),
    prefixes=st.integers(0, 3),
    budget=st.integers(11, 40),
)
def test_any_schedule_reads_right_stays_in_budget_and_ends(
    events: list[tuple[object, ...]], running: int, prefixes: int, budget: int
) -> None:
    # 24 + 6 prompt tokens, 12 generated, rounded up: the least budget that holds one request.
    engine = SymbolicEngine(limits(running=running, prefixes=prefixes, budget=budget * GRANULE))
    cancelled: set[int] = set()
    count = 0
    for event in events:
        match event:
            case ("add", (int(family), int(length), int(tail)), int(output), int(priority)):
                prompt = [family * 40 + place for place in range(length)] + [500 + count] * tail
                engine.add(sequence(count, prompt, priority=priority), output)
                count += 1
            case ("cancel", int(victim)):
                if victim in engine.open:
                    cancelled.add(victim)
                engine.cancel(victim)
            case ("step", int(chunk_tokens)):
                engine.step(chunk_tokens)
    engine.run_to_the_end()
    assert set(engine.finished) | cancelled == set(range(count))
    assert len(engine.finished) == len(set(engine.finished))
    assert engine.scheduler.running == engine.scheduler.queued == 0
    assert engine.scheduler.retained_prefixes <= prefixes
