"""Virtual time knows of a clip's pictures what the profiler knows live."""

from dataclasses import replace

from simulator.preferences import UNSEEN, SegmentPictures
from simulator.requests import request_of
from skyshore.domain.task import TaskKind
from skyshore.profiling.preference import PreferenceNetwork, PreferencePredictor
from skyshore.workload.arrival import Arrival
from skyshore.workload.clip_complexity import clip_complexity
from tests.fakes.small_fleet import video_task

SEGMENT = Arrival(
    1.0, "r", TaskKind.VIDEO_DETECT, camera="c", clip="vtest", frames=10, fps=5.0, deadline_s=2.0, min_quality=0.5
)


def test_a_camera_is_told_what_the_profilers_predictor_says_of_its_stream():
    pictures, live = SegmentPictures(), PreferencePredictor(PreferenceNetwork.shipped())
    for segment in range(30):
        arrival = replace(SEGMENT, first_frame=10 * segment)
        profile = request_of(arrival, pictures).profile
        task = video_task(job_id="upload", deadline_s=2.0, min_quality=0.5)
        assert profile.complexity == clip_complexity("vtest", 10 * segment)
        assert profile.compute_preference == live.predict(task, 10, profile.complexity)


def test_demands_and_clips_are_kept_apart():
    pictures = SegmentPictures()
    preferences = {
        request_of(replace(SEGMENT, **change), pictures).profile.compute_preference
        for change in ({}, {"min_quality": 0.9}, {"deadline_s": 0.2}, {"clip": "bikes"})
    }
    assert len(preferences) == 4


def test_text_and_strange_clips_are_unseen():
    pictures = SegmentPictures()
    text = Arrival(1.0, "r", TaskKind.LLM, prompt_tokens=5, output_tokens=5)
    for arrival in (text, replace(SEGMENT, clip="holiday.mp4")):
        profile = request_of(arrival, pictures).profile
        assert (profile.complexity, profile.compute_preference) == UNSEEN


def test_clips_loop():
    assert clip_complexity("bikes", 3) == clip_complexity("bikes", 253) != clip_complexity("bikes", 100)
