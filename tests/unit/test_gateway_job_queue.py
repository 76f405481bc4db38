"""Which job begins next: bounds hold, nobody starves, and the order is the same each time."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.video.job_queue import LEAST_PICTURE_PIXELS, SHORT_PIXELS, RunningJob, next_job, work_pixels
from skyshore.domain.job import JobRank, WaitingJob

SHORT, LONG = SHORT_PIXELS / 10, SHORT_PIXELS * 10
INTERACTIVE, BATCH = 2, 0

ranks = st.builds(
    JobRank,
    caller=st.sampled_from("abc"),
    priority=st.integers(0, 2),
    due_at_s=st.floats(0, 1000),
    work_pixels=st.sampled_from([SHORT, LONG]),
)
waiting_jobs = st.lists(st.builds(WaitingJob, st.just(""), ranks, st.integers(0, 2)), max_size=12).map(
    lambda jobs: [replace(job, entry_id=f"{number}-0") for number, job in enumerate(jobs)]
)
running_jobs = st.lists(st.builds(RunningJob, ranks, st.booleans()), max_size=6)


def job(number: int, caller: str = "a", priority: int = 1, due_at_s: float = 600.0, work: float = SHORT) -> WaitingJob:
    return WaitingJob(f"{number}-0", JobRank(caller, priority, due_at_s, work))


def is_long(job: WaitingJob | RunningJob) -> bool:
    return job.rank.work_pixels > SHORT_PIXELS


@given(waiting_jobs, running_jobs, st.integers(1, 5), st.floats(0, 1000))
def test_the_bounds_hold(waiting: list[WaitingJob], running: list[RunningJob], slots: int, now_s: float) -> None:
    chosen = next_job(waiting, running, slots, now_s)
    if len(running) >= slots:
        assert chosen is None
    if chosen is None:
        return
    if slots > 1 and is_long(chosen):
        assert sum(map(is_long, running)) < slots - 1, "one slot is kept for short clips"
    if chosen.deliveries:
        assert not any(other.is_suspect for other in running), "one suspect at a time"


@given(waiting_jobs, running_jobs, st.integers(1, 5), st.floats(0, 1000), st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_the_list(
    waiting: list[WaitingJob], running: list[RunningJob], slots: int, now_s: float, chance: random.Random
) -> None:
    chosen = next_job(waiting, running, slots, now_s)
    chance.shuffle(waiting)
    assert next_job(waiting, running, slots, now_s) == chosen


@given(waiting_jobs, running_jobs, st.integers(1, 5), st.floats(0, 1000))
def test_a_free_slot_is_never_left_empty_beside_a_short_new_clip(
    waiting: list[WaitingJob], running: list[RunningJob], slots: int, now_s: float
) -> None:
    fresh = [job for job in waiting if not is_long(job) and not job.deliveries]
    if len(running) < slots and fresh:
        assert next_job(waiting, running, slots, now_s) is not None


@settings(max_examples=60, deadline=None)
@given(ranks, st.integers(0, 2), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_no_job_starves_however_many_others_arrive(rank: JobRank, deliveries: int, slots: int, seed: int) -> None:
    """Each step one running job ends and up to two others arrive: more than the slots can do."""
    chance = random.Random(seed)
    mine = WaitingJob("0-0", rank, deliveries)
    waiting, running = [mine], []
    for step in range(1, 3000):
        now_s = float(step)
        for _ in range(chance.randrange(3)):
            caller = chance.choice("abcdefgh")
            due_at_s = now_s + chance.choice([20.0, 60.0, 600.0])
            other = JobRank(caller, chance.randrange(3), due_at_s, chance.choice([SHORT, SHORT, LONG]))
            waiting.append(WaitingJob(f"{step}-{len(waiting)}", other, chance.choice([0, 0, 0, 1])))
        if running:
            running.pop(chance.randrange(len(running)))
        while chosen := next_job(waiting, running, slots, now_s):
            if chosen is mine:
                return
            waiting.remove(chosen)
            running.append(RunningJob(chosen.rank, is_suspect=chosen.deliveries > 0))
    raise AssertionError("it never began")


def test_a_small_clip_begins_beside_two_huge_ones_and_a_third_huge_one_waits() -> None:
    huge = RunningJob(JobRank("a", BATCH, 600.0, LONG))
    third, small = job(1, "b", BATCH, 600.0, LONG), job(2, "b", INTERACTIVE, 20.0)
    assert next_job([third, small], [huge, huge], 3, now_s=0.0) == small
    assert next_job([third], [huge, huge], 3, now_s=0.0) is None
    assert next_job([third], [huge], 3, now_s=0.0) == third
    assert next_job([third], [], 1, now_s=0.0) == third, "with one slot nothing can be kept"


def test_class_goes_before_due_time_until_a_job_is_due() -> None:
    batch, interactive = job(1, priority=BATCH, due_at_s=100.0), job(2, priority=INTERACTIVE, due_at_s=110.0)
    assert next_job([batch, interactive], [], 2, now_s=99.0) == interactive
    assert next_job([batch, interactive], [], 2, now_s=100.0) == batch
    early, late = job(1, due_at_s=200.0), job(2, due_at_s=100.0)
    assert next_job([early, late], [], 2, now_s=0.0) == late
    assert next_job([job(10), job(9)], [], 2, now_s=0.0) == job(9), "equal ones in the order of arrival"


def test_a_caller_with_fewer_running_jobs_goes_first() -> None:
    flood, other = [job(number, "flood", INTERACTIVE, 20.0) for number in range(50)], job(99, "other", BATCH, 600.0)
    running = [RunningJob(JobRank("flood"))]
    assert next_job([*flood, other], running, 3, now_s=30.0) == other


def test_the_work_of_many_tiny_pictures_is_not_small() -> None:
    assert work_pixels(199_000, 16, 16) == 199_000 * LEAST_PICTURE_PIXELS > SHORT_PIXELS
    assert work_pixels(250, 1280, 720) == 250 * 1280 * 720 < SHORT_PIXELS
