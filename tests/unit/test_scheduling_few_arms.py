"""A handful of arms is reckoned with in plain numbers: the same arms, figures and choices, to the bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.node import Link, Tier
from skyshore.domain.outcome import OutcomeStatus
from skyshore.policies.protocol import REFUSED, Context, Feedback
from skyshore.policies.registry import POLICIES, create_policy
from skyshore.scheduling import core as core_module
from skyshore.scheduling.core import CoreSettings
from skyshore.scheduling.eligibility import capable_rows, open_rows
from skyshore.scheduling.estimates import estimate_arms
from skyshore.scheduling.few_arms import EstimatedFew, capable_few, open_few
from skyshore.scheduling.fleet import Fleet
from tests.fakes.queue_model import QueueModel
from tests.fakes.small_fleet import LLM_PROFILE, VIDEO_PROFILE, llm_arm, llm_task, node, outcome, status, video_arm
from tests.fakes.small_fleet import video_task as video
from tests.replay.record import arrivals, fleet

sizes = st.integers(1, 12)
tasks = st.one_of(
    st.builds(
        llm_task,
        deadline_s=st.floats(0.01, 60.0),
        min_quality=st.sampled_from([0.0, 0.5, 0.65, 0.9]),
        model=st.sampled_from(["", "m", "other"]),
    ),
    st.builds(video, deadline_s=st.floats(0.01, 60.0), min_quality=st.sampled_from([0.0, 0.65])),
)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Unequal nodes with links, strangers' tasks and some of ours."""
    made = Fleet()
    figure = st.floats(0.01, 100.0)
    for i in range(draw(sizes)):
        name = f"n{i}"
        quality = draw(st.floats(0.1, 1.0))
        llm = llm_arm(
            name,
            quality=quality,
            slots=draw(st.integers(1, 3)),
            model=draw(st.sampled_from(["m", "other"])),
            context_tokens=draw(st.sampled_from([0, 64, 8192])),
            prefill_tokens_per_s=draw(st.one_of(st.just(0.0), figure)),
            busy_watts=draw(figure),
        )
        seen = video_arm(name, frame_stride=draw(st.integers(1, 4)), frame_s=draw(figure), bytes_per_frame=draw(figure))
        unsized = replace(seen, arm_id=f"{name}/unsized", bytes_per_frame=0.0)
        made.report(
            node(name, llm, seen, unsized, tier=draw(st.sampled_from(list(Tier)))),
            status(
                name,
                running=draw(st.integers(0, 4)),
                capacity=draw(st.integers(1, 9)),
                kv_used=draw(st.floats(0, 1)),
                draining=draw(st.sampled_from([False, False, True])),
            ),
        )
        if draw(st.booleans()):
            made.set_link(name, Link(draw(figure) * 1e4, 1e6, draw(st.floats(0, 0.2)), 1e-7))
    for i in range(draw(st.integers(0, 12))):
        task = draw(tasks)
        context = Context(1.0, replace(task, task_id=f"t{i}"), profile_of(task))
        shown, _ = both(made, context)
        if len(shown):
            made.reserve(context, shown.estimate(draw(st.integers(0, len(shown) - 1))), 1, 5.0)
    return made


def profile_of(task):
    return LLM_PROFILE if task.kind.value == "llm" else VIDEO_PROFILE


def both(made: Fleet, context: Context, avoid: tuple[str, ...] = ()):
    table = made.table(context.task.kind)
    few = EstimatedFew(table, made.columns, open_few(capable_few(table, context), avoid), context)
    rows = open_rows(made, table, capable_rows(table, context), avoid)
    return few, (estimate_arms(table, made.columns, rows, context) if len(rows) else None)


@settings(max_examples=150, deadline=None)
@given(made=fleets(), task=tasks, avoid=st.sampled_from([(), ("n0",), ("n1", "nobody")]), waited_s=st.floats(0, 70))
def test_plain_numbers_equal_columns_to_the_bit(made, task, avoid, waited_s):
    few, arms = both(made, Context(2.0, task, profile_of(task), waited_s), avoid)
    if arms is None:
        assert len(few) == 0
        return
    assert few.rows == arms.rows.tolist()
    assert [few.estimate(i) for i in range(len(few))] == [arms.estimate(i) for i in range(len(arms))]
    assert (few.node, few.load, few.capacity) == (arms.node.tolist(), arms.load.tolist(), arms.capacity.tolist())
    columns = few.arms()
    for name in ("rows", "latency_s", "joules", "queue_s", "quality", "is_cloud"):
        np.testing.assert_array_equal(getattr(columns, name), getattr(arms, name))


@pytest.mark.parametrize("name", sorted(POLICIES))
@settings(max_examples=15, deadline=None)
@given(
    made=fleets(),
    asked=st.lists(tasks, min_size=1, max_size=8),
    fails=st.lists(st.booleans(), min_size=1, max_size=8),
    seed=st.integers(0, 9),
)
def test_a_policy_answers_the_same_from_plain_numbers(name, made, asked, fails, seed):
    ends = [(OutcomeStatus.FAILED if failed else OutcomeStatus.OK, 0.6) for failed in fails]
    answer_both_ways(name, made, asked, ends, seed)


def test_quality_that_fell_short_is_priced_the_same():
    made = Fleet()
    for i in range(3):
        made.report(node(f"n{i}", llm_arm(f"n{i}", quality=0.66 + 0.02 * i)), status(f"n{i}"))
    asked = [llm_task(deadline_s=60.0, min_quality=0.65)] * 12
    assert len(set(answer_both_ways("skyshore", made, asked, [(OutcomeStatus.OK, 0.1)], seed=0))) > 1


def answer_both_ways(name, made, asked, ends, seed) -> list[int]:
    """The rows chosen; `ends` are status and quality of the outcomes, used in turn."""
    plain, columns = (create_policy(name, np.random.default_rng(seed)) for _ in range(2))
    chosen = []
    for i, task in enumerate(asked):
        context = Context(float(i), replace(task, task_id=f"asked{i // 2}"), profile_of(task))
        few, arms = both(made, context)
        if arms is None:
            continue
        ours, theirs = plain.select_few(context, few), columns.select(context, arms)
        assert (ours.index, ours.propensity, ours.features) == (theirs.index, theirs.propensity, theirs.features)
        np.testing.assert_array_equal(np.asarray(ours.scores), np.asarray(theirs.scores))
        chosen.append(ours.index)
        if ours.index == REFUSED:
            continue
        arm = few.estimate(ours.index)
        ended_as, quality = ends[i % len(ends)]
        ended = outcome(
            context.task.task_id, arm.arm_id, arm.node_id, latency_s=0.5 + i, status=ended_as, quality=quality
        )
        for policy in (plain, columns):
            policy.update(Feedback(float(i), context, arm, ended, 0.1 * i - 0.5))
    return chosen


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_whole_history_has_the_same_decisions_either_way(name, monkeypatch):
    def decisions(few: int) -> list[tuple[str, str, float, tuple[float, ...]]]:
        monkeypatch.setattr(core_module, "FEW", few)
        run = QueueModel(fleet(), CoreSettings(policy=name, seed=4), seed=3).play(arrivals())
        return [(a.task_id, a.arm.arm_id, a.propensity, a.record.scores) for a in run.dispatched]

    assert decisions(0) == decisions(100)
