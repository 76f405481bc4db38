"""The kernels of engines and of the energy ledger give the same as machine code and as plain Python, to the bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from skyshore.nodemodel.batching import begin_iterations, begin_or_shorten, end_iterations, run_end_s, shorten
from skyshore.nodemodel.energy import close_account, modelled_joules, open_account, open_ledger
from skyshore.nodemodel.engine import (
    begin_segment,
    busy_s,
    cancel,
    change_pace,
    clear,
    end_segment,
    fill_engine,
    offer,
    segment_work_s,
)
from skyshore.nodemodel.lines import members
from skyshore.nodemodel.records import ENGINE, LEDGER, LLM, ROW
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed
from skyshore.rules.kernel import can_compile, compiled
from skyshore.rules.records import NONE, integers, rows

needs_numba = pytest.mark.skipif(not can_compile(), reason="numba is not installed (the extra `compiled`)")
TASKS = 40


class OneNode:
    """One engine and its ledger in one of the two forms, worked on by a script of random events."""

    def __init__(self, speed: LlmSpeed | VideoSpeed, *, arrays: bool) -> None:
        self.use: Callable[[Any], Any] = compiled if arrays else lambda kernel: kernel
        self.engines, self.tasks = rows(ENGINE, 1, arrays=arrays), rows(ROW, TASKS, arrays=arrays)
        ledgers = rows(LEDGER, 1, arrays=arrays)
        self.after, self.after_unpaid = integers(TASKS, arrays=arrays), integers(TASKS, arrays=arrays)
        self.leaving = integers(TASKS, arrays=arrays)
        self.engine, self.ledger = self.engines[0], ledgers[0]
        self.views = [each.view(np.recarray) if arrays else each for each in (self.engines, self.tasks, ledgers)]
        fill_engine(self.views[0][0], speed)
        self.use(clear)(self.engine)
        self.views[2][0].idle_watts = 10.0
        self.use(open_ledger)(self.ledger, 0.0, 0.0)
        self.open, self.now_s, self.log = set[int](), 0.0, list[Any]()

    def call(self, kernel: Any, *arguments: Any) -> Any:
        """A kernel on the engine, its tasks and lines."""
        got = self.use(kernel)(self.engine, self.tasks, self.after, *arguments)
        self.log.append(got)
        return got

    def joules(self) -> float:
        above = self.use(modelled_joules)(self.engines, 0, 1, self.tasks, self.after, self.now_s)
        return float(10.0 * self.now_s + above)

    def arrive(self, number: int, prompt: int, output: int, frames: int) -> None:
        task = self.views[1][number]
        task.prompt_tokens, task.output_tokens, task.reserved_tokens = prompt, output, prompt + output
        task.work_s = self.use(segment_work_s)(self.engine, frames, 0.01)
        task.ready_s = self.now_s + 0.02
        if not self.call(offer, number):
            return
        self.start()
        self.open.add(number)
        self.use(open_account)(
            self.ledger, self.engine, self.tasks, self.after_unpaid, number, self.now_s, self.joules()
        )

    def start(self) -> None:
        if self.views[0][0].kind == LLM:
            self.call(begin_or_shorten, self.now_s)
        else:
            while self.call(begin_segment, self.now_s) != NONE:
                pass

    def leave(self, number: int, *, done: bool) -> None:
        self.open.discard(number)
        if not done:
            self.call(cancel, number, self.now_s)
            if self.views[0][0].kind == LLM:
                self.log.append(self.use(shorten)(self.engine, self.now_s))
            else:
                self.start()
        self.use(close_account)(
            self.ledger, self.engine, self.tasks, self.after_unpaid, number, self.now_s, self.joules()
        )

    def pass_to(self, time_s: float, limit: int) -> None:
        """Let all end that ends by then."""
        engine = self.views[0][0]
        while engine.kind == LLM and engine.run_open and self.use(run_end_s)(self.engine) <= time_s:
            self.now_s = float(self.use(run_end_s)(self.engine))
            done = self.call(end_iterations, self.leaving)
            left = [int(number) for number in self.leaving[: done + int(engine.dropped)]]
            self.log.append(left)
            self.call(begin_iterations, self.now_s, limit)
            for number in left[:done]:
                self.leave(number, done=True)
        while engine.kind != LLM:
            serving = [(number, self.views[1][number]) for number in members(engine.working, self.after)]
            ends = [(max(task.started_s + task.work_s, task.ready_s), number) for number, task in serving]
            if not ends or min(ends)[0] > time_s:
                break
            self.now_s, number = min(ends)
            self.call(end_segment, number)
            self.start()
            self.leave(number, done=True)
        self.now_s = time_s

    def drift(self, slowdown: float, hindrance: float) -> None:
        self.views[0][0].slowdown, self.views[0][0].hindrance = slowdown, hindrance
        self.use(change_pace)(self.engine)
        self.log.append(self.use(shorten)(self.engine, self.now_s))

    def history(self, seed: int) -> list[Any]:
        rng = random.Random(seed)
        for number in range(TASKS):
            self.pass_to(self.now_s + rng.expovariate(20.0), rng.choice((0, 0, 0, 3)))
            self.arrive(number, rng.randint(1, 300), rng.randint(1, 40), rng.randint(1, 30))
            if self.open and rng.random() < 0.15:
                self.leave(rng.choice(sorted(self.open)), done=False)
            if rng.random() < 0.1:
                self.drift(rng.choice((1.0, 1.7)), rng.choice((1.0, 1.25)))
            self.log.append(self.call(busy_s, self.now_s))
        self.pass_to(1e4, 0)
        for view in self.views:
            self.log += [getattr(row, name) for row in view for name in ROW_NAMES if hasattr(row, name)]
        return self.log


ROW_NAMES = sorted(
    {*(ROW.names or ()), *(ENGINE.names or ()), *(LEDGER.names or ())} - {"waiting", "working", "unpaid"}
)


def speed_of(seed: int) -> LlmSpeed | VideoSpeed:
    rng = random.Random(seed)
    if seed % 4 == 3:
        return VideoSpeed("m", "test", segment_s=0.03, slots=rng.randint(1, 3), queue=rng.randint(0, 6), busy_watts=7.0)
    return LlmSpeed(
        *("m", "test"),
        iteration_s=rng.choice((0.004, 0.01)),
        prefill_token_s=rng.choice((0.0, 0.0003)),
        row_s=0.0007,
        slots=rng.randint(1, 5),
        queue=rng.randint(0, 8),
        kv_tokens=rng.choice((320, 700, 10_000)),
        chunk_tokens=rng.choice((5, 64, 512)),
        stall_ratio=rng.choice((0.0, 0.7)),
        row_multiple=rng.choice((1, 4)),
        busy_watts=30.0,
    )


@needs_numba
@pytest.mark.parametrize("seed", range(24))
def test_engines_and_ledgers_are_the_same_in_both_forms(seed: int) -> None:
    speed = speed_of(seed)
    plain, machine = (OneNode(speed, arrays=arrays).history(seed) for arrays in (False, True))
    assert len(plain) > 5 * TASKS
    assert plain == machine


def a_node_with(*tasks: tuple[int, int]) -> OneNode:
    """A plain node that has just begun with rows of so many prompt and output tokens."""
    node = OneNode(LlmSpeed("m", "test", iteration_s=0.01, slots=8, chunk_tokens=1000, busy_watts=5.0), arrays=False)
    for number, (prompt, output) in enumerate(tasks):
        node.arrive(number, prompt, output, 0)
    return node


def test_rows_that_were_decoding_are_done_first_and_cancelled_ones_leave_last() -> None:
    node = a_node_with((10, 2), (10, 50))
    node.pass_to(0.01, 0)
    node.arrive(2, 10, 1, 0)
    node.arrive(3, 10, 1, 0)
    assert node.call(cancel, 1, 0.015)
    assert not node.call(cancel, 1, 0.015), "it is forgotten already"
    assert node.call(end_iterations, node.leaving) == 1
    assert [node.leaving[0], node.leaving[1], node.engine.dropped] == [0, 1, 1]
    node.call(begin_iterations, 0.02, 0)
    assert node.call(end_iterations, node.leaving) == 2
    assert node.leaving[:2] == [2, 3]
    assert node.engine.kv_reserved == 0


def test_an_engine_that_starts_again_has_no_tasks_and_keeps_its_pace() -> None:
    node = a_node_with((10, 20), (10, 30))
    node.drift(2.0, 1.0)
    clear(node.engine)
    assert members(node.engine.working, node.after) == []
    assert busy_s(node.engine, node.tasks, node.after, 5.0) == 0.0
    node.arrive(4, 10, 1, 0)
    assert run_end_s(node.engine) == 0.02
