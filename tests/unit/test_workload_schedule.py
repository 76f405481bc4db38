"""The schedule file reads back what was written and refuses what was changed; scaling keeps what it promises."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival
from skyshore.workload.cameras import CameraSpec, camera_arrivals, objects_per_frame
from skyshore.workload.llm_traces import InvalidTrace, read_azure, read_mooncake, spread_ticks, tick_of
from skyshore.workload.prompts import prompt_text
from skyshore.workload.scaling import cap_tokens, compress, thin, window
from skyshore.workload.schedule import InvalidSchedule, Schedule, assemble, from_lines, to_lines

names = st.text(max_size=8)
times = st.floats(0, 1000)
llm_arrivals = st.builds(
    Arrival,
    t_intended_s=times,
    request_id=st.just(""),
    kind=st.just(TaskKind.LLM),
    service_class=names,
    origin=names,
    session=names,
    prompt_tokens=st.integers(1, 5000),
    output_tokens=st.integers(1, 5000),
    prefix_ids=st.lists(st.integers(0, 10**9), max_size=4).map(tuple),
    prefix_block_tokens=st.just(512),
    deadline_s=st.floats(0.01, 1e4),
    min_quality=st.floats(0, 1),
)
video_arrivals = st.builds(
    Arrival,
    t_intended_s=times,
    request_id=st.just(""),
    kind=st.sampled_from([TaskKind.VIDEO_DETECT, TaskKind.VIDEO_CLASSIFY]),
    camera=names,
    session=names,
    frames=st.integers(1, 100),
    fps=st.floats(0.1, 60),
    first_frame=st.integers(0, 10**6),
)
schedules = st.lists(llm_arrivals | video_arrivals, max_size=12).map(
    lambda rows: assemble([rows], duration_s=1000, seed=4, provenance=["drawn"])
)


def llm(t_s: float, session: str = "", **fields: Any) -> Arrival:
    base = Arrival(t_s, "", TaskKind.LLM, session=session, prompt_tokens=10, output_tokens=5)
    return replace(base, **fields)


@given(schedules)
@settings(max_examples=60, deadline=None)
def test_a_schedule_survives_the_file_and_keeps_its_digest(schedule: Schedule) -> None:
    read = from_lines(to_lines(schedule))
    assert read == schedule
    assert read.sha256 == schedule.sha256


def test_the_digest_is_what_sha256sum_says_of_the_rows() -> None:
    lines = list(to_lines(assemble([[llm(1.0), llm(0.5)]], duration_s=2, seed=0)))
    assert json.loads(lines[0])["sha256"] == hashlib.sha256("".join(lines[1:]).encode()).hexdigest()


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda lines: lines[:-1], "says 2 requests, the file has 1"),
        (lambda lines: [*lines[:-1], lines[-1].replace('"prompt_tokens":10', '"prompt_tokens":11')], "was changed"),
        (lambda lines: lines[1:], "line 1 is not a schedule header"),
        (lambda lines: [lines[0].replace("schedule/1", "schedule/9"), *lines[1:]], "not 'skyshore.schedule/1'"),
        (lambda lines: [], "line 1 is not a schedule header"),
    ],
)
def test_a_file_that_was_changed_is_refused_with_the_reason(tamper, message: str) -> None:  # type: ignore[no-untyped-def]
    lines = list(to_lines(assemble([[llm(0.5), llm(1.0)]], duration_s=2, seed=0)))
    with pytest.raises(InvalidSchedule, match=message):
        from_lines(tamper(lines))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"t_intended_s":1,"request_id":"a","kind":"poem","prompt_tokens":1,"output_tokens":1}', "line 2: kind"),
        ('{"t_intended_s":1,"request_id":"a","kind":"llm","prompt_tokens":0,"output_tokens":1}', "prompt_tokens"),
        ('{"t_intended_s":-1,"request_id":"a","kind":"llm","prompt_tokens":1,"output_tokens":1}', "t_intended_s"),
        ('{"t_intended_s":1,"request_id":"a","kind":"video.detect","frames":0,"fps":5}', "frames"),
        ('{"t_intended_s":1,"request_id":"a","kind":"llm","prompt_tokens":1,"output_tokens":1,"colour":3}', "colour"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(row: str, message: str) -> None:
    digest = hashlib.sha256((row + "\n").encode()).hexdigest()
    header = {"format": "skyshore.schedule/1", "sha256": digest, "seed": 0, "requests": 1, "duration_s": 2.0}
    with pytest.raises(InvalidSchedule, match=message):
        from_lines([json.dumps(header) + "\n", row + "\n"])


@given(schedules, st.floats(0.1, 20))
@settings(max_examples=40, deadline=None)
def test_compressing_changes_times_by_the_factor_and_nothing_else(schedule: Schedule, factor: float) -> None:
    faster = compress(schedule, factor)
    assert faster.duration_s == pytest.approx(schedule.duration_s / factor, abs=1e-6)
    for before, after in zip(schedule.arrivals, faster.arrivals, strict=True):
        assert after.t_intended_s == pytest.approx(before.t_intended_s / factor, abs=1e-6)
        assert replace(after, t_intended_s=before.t_intended_s) == before


@given(schedules, st.floats(0.05, 1), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_thinning_keeps_sessions_whole_or_not_at_all(schedule: Schedule, keep: float, seed: int) -> None:
    kept = thin(schedule, keep, seed)
    sessions = {arrival.session for arrival in kept.arrivals if arrival.session}
    for session in sessions:
        assert [a for a in kept.arrivals if a.session == session] == [
            a for a in schedule.arrivals if a.session == session
        ]
    assert thin(schedule, 1.0, seed).arrivals == schedule.arrivals


def test_thinning_keeps_about_the_asked_share_of_sessions() -> None:
    schedule = assemble([[llm(i / 10, session=f"s{i // 2}") for i in range(4000)]], duration_s=400, seed=0)
    assert len(thin(schedule, 0.25, 3).arrivals) == pytest.approx(1000, rel=0.1)


def test_a_window_moves_to_zero_and_the_provenance_tells_every_step() -> None:
    schedule = assemble([[llm(t) for t in (1.0, 5.0, 9.0)]], duration_s=10, seed=0, provenance=["made"])
    cut = cap_tokens(window(schedule, 4, 5), 4, 2)
    assert [(a.t_intended_s, a.prompt_tokens, a.output_tokens) for a in cut.arrivals] == [(1.0, 4, 2)]
    assert cut.provenance == ("made", "window start_s=4 length_s=5", "cap_tokens prompt=4 output=2")


def test_a_camera_sends_a_segment_as_soon_as_its_last_frame_was_taken() -> None:
    camera = CameraSpec("gate", "clip.mp4", fps=5, segment_s=2, deadline_s=3, phase_s=0.5, objects=(1, 3, 5))
    segments = camera_arrivals(camera, 10.0, np.random.default_rng(0))
    assert [s.t_intended_s for s in segments] == [2.5, 4.5, 6.5, 8.5]
    assert [(s.first_frame, s.frames) for s in segments] == [(0, 10), (10, 10), (20, 10), (30, 10)]
    assert segments[0].objects_per_frame == pytest.approx(2.8)  # 1 3 5 1 3 5 1 3 5 1
    assert {s.session for s in segments} == {"gate"}


def test_unphased_cameras_start_within_one_segment_by_the_seed() -> None:
    camera = CameraSpec("gate", "clip.mp4", fps=5, segment_s=2, deadline_s=3)
    firsts = [camera_arrivals(camera, 10.0, np.random.default_rng(seed))[0].t_intended_s for seed in range(20)]
    assert all(2 <= first < 4 for first in firsts)
    assert len(set(firsts)) == 20


def test_ground_truth_lines_become_objects_per_frame_with_empty_frames_counted() -> None:
    assert objects_per_frame(["1,1,0,0,9,9,1\n", "1,2,0,0,9,9,1\n", "3,1,0,0,9,9,1\n"]) == (2.0, 0.0, 1.0)
    with pytest.raises(InvalidTrace, match="line 1"):
        objects_per_frame(["frame,id\n"])


def test_azure_rows_start_at_zero_and_failed_requests_are_left_out() -> None:
    rows = read_azure(
        [
            "TIMESTAMP,ContextTokens,GeneratedTokens\n",
            "2023-11-16 18:15:50.9951690,396,109\n",
            "2023-11-16 18:15:46.6805900,374,44\n",
            "2023-11-16 18:15:51.0000000,10,0\n",
        ]
    )
    assert [(a.prompt_tokens, a.output_tokens) for a in rows] == [(374, 44), (396, 109)]
    assert [a.t_intended_s for a in rows] == pytest.approx([0.0, 4.314579], abs=1e-5)
    with pytest.raises(InvalidTrace, match="GeneratedTokens"):
        read_azure(["TIMESTAMP,ContextTokens\n"])


def mooncake(t_ms: int, *blocks: int) -> str:
    row = {"timestamp": t_ms, "input_length": 512 * len(blocks), "output_length": 7, "hash_ids": blocks}
    return json.dumps(row) + "\n"


def test_mooncake_turns_join_the_session_whose_blocks_they_continue() -> None:
    lines = [mooncake(0, 0, 1), mooncake(0, 0, 2), mooncake(3000, 0, 1, 3), mooncake(6000, 0, 9)]
    sessions = [a.session for a in read_mooncake(lines)]
    assert sessions == ["line1", "line2", "line1", "line4"]


def test_spreading_ticks_keeps_each_arrival_in_its_tick_and_turns_in_order() -> None:
    rows = read_mooncake([mooncake(3000 * (i // 10), 0, i % 7 + 1, 100 + i) for i in range(200)])
    assert tick_of(rows) == 3.0
    spread = spread_ticks(rows, 3.0, np.random.default_rng(2))
    assert spread == spread_ticks(rows, 3.0, np.random.default_rng(2))
    blocks_to_tick = {a.prefix_ids: a.t_intended_s for a in rows}
    assert all(0 <= a.t_intended_s - blocks_to_tick[a.prefix_ids] < 3.0 for a in spread)
    for session in {a.session for a in rows}:
        turns = [a.prefix_ids[-1] for a in spread if a.session == session]
        assert turns == sorted(turns)
    assert len({a.t_intended_s for a in spread}) == 200


def test_prompts_share_text_exactly_as_far_as_their_blocks_agree() -> None:
    first = llm(0, request_id="r1", prompt_tokens=50, prefix_ids=(1, 2, 3), prefix_block_tokens=16)
    second = llm(0, request_id="r2", prompt_tokens=60, prefix_ids=(1, 2, 4), prefix_block_tokens=16)
    words_1, words_2 = prompt_text(first, seed=5).split(), prompt_text(second, seed=5).split()
    assert (len(words_1), len(words_2)) == (50, 60)
    assert words_1[:32] == words_2[:32]
    assert words_1[32:48] != words_2[32:48]
    assert prompt_text(first, seed=5) == prompt_text(first, seed=5) != prompt_text(first, seed=6)


@given(st.integers(1, 300), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_with_a_tokenizer_the_length_is_exact(prompt_tokens: int, seed: int) -> None:
    def count(text: str) -> int:  # a vocabulary in which words over four letters are two tokens
        return sum(1 + (len(word) > 4) for word in text.split())

    arrival = llm(0, request_id="r1", prompt_tokens=prompt_tokens)
    assert count(prompt_text(arrival, seed, count)) == prompt_tokens


def test_a_tokenizer_that_never_meets_the_length_is_reported() -> None:
    with pytest.raises(ValueError, match="exactly 3 tokens found for r1"):
        prompt_text(llm(0, request_id="r1", prompt_tokens=3), 0, lambda text: 2 * len(text.split()))
