"""Profiles: documents that come back as they went, mistakes that are named, hardware that follows its data sheet."""

import json

import pytest

from skyshore.domain.task import TaskKind
from skyshore.domain.video import Codec
from skyshore.nodemodel.arms import video_arms
from skyshore.nodemodel.detectors import VISION_SHAPES
from skyshore.nodemodel.document import ProfileError, profile_from_document, profile_to_document
from skyshore.nodemodel.hardware import HARDWARE, LLM_SHAPES, llm_speed, modelled_profile
from skyshore.nodemodel.quality import llm_quality, vision_quality
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed

PROFILE = NodeProfile(
    "bench",
    "measured:here",
    12.5,
    (LlmSpeed("smollm2-135m:int4", "measured:here", 0.3, 0.01, 0.0002, 0.001, slots=4),),
    (VideoSpeed("nanodet", "measured:here", 0.6, 0.03, codec=Codec.H264),),
)


def test_a_profile_survives_json():
    assert profile_from_document(json.loads(json.dumps(profile_to_document(PROFILE)))) == PROFILE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"llm": [{"model": "m"}]}, "llm[0].source is missing"),
        ({"llm": [{"model": "m", "source": "s", "slots": 0}]}, "llm[0].slots must be positive"),
        ({"llm": [{"model": "m", "source": "s", "slots": 1.5}]}, "llm[0].slots must be a whole number"),
        ({"llm": [{"model": "m", "source": "s", "slotz": 1}]}, "llm[0].slotz is unknown; known are model"),
        ({"video": [{"model": "m", "source": "s", "codec": "gif"}]}, "video[0].codec must be one of jpeg, h264"),
        ({"video": [{"model": "m", "source": "s", "quality": 2}]}, "video[0].quality must be in 0..1"),
        ({"idle_watts": -1}, "idle_watts must be at least 0"),
        ({"idle_watts": "warm"}, "idle_watts must be a number"),
        ({"source": ""}, "source is missing"),
        ({"colour": 1}, "colour is unknown"),
    ],
)
def test_a_mistake_is_named(change, said):
    with pytest.raises(ProfileError) as raised:
        profile_from_document(profile_to_document(PROFILE) | change)
    assert said in str(raised.value)


def test_a_modelled_node_classifies_clips_with_one_arm_per_measured_encoding():
    profile = modelled_profile("t4", ["nanodet", "space-time-actions"])
    assert profile_from_document(json.loads(json.dumps(profile_to_document(profile)))) == profile
    arms = video_arms("n", profile.video)
    clips = [arm for arm in arms if arm.kind is TaskKind.VIDEO_CLASSIFY]
    assert {arm.model for arm in clips} == {"space-time-actions"}
    assert {arm.kind for arm in arms if arm not in clips} == {TaskKind.VIDEO_DETECT}
    assert max(arm.bytes_per_frame for arm in clips) > 5 * min(arm.bytes_per_frame for arm in clips)
    assert len({arm.quality for arm in clips}) == len(clips) > 2
    with pytest.raises(ProfileError, match=r"kind must be one of video\.detect, video\.classify, not 'llm'"):
        profile_from_document(profile_to_document(profile) | {"video": [{"model": "m", "source": "s", "kind": "llm"}]})


def test_decoding_is_bound_by_memory_and_prefill_by_arithmetic():
    a100, h100 = (llm_speed(HARDWARE[name], LLM_SHAPES["llama3-8b"]) for name in ("a100", "h100"))
    assert h100.decode_tokens_per_s / a100.decode_tokens_per_s == pytest.approx(3350 / 2039, rel=0.02)
    assert a100.prefill_token_s / h100.prefill_token_s == pytest.approx(989 / 312, rel=0.01)
    assert 60 < a100.decode_tokens_per_s < 2039 / 16.06, "below one read of 16 GB of weights per token"


def test_a_model_that_does_not_fit_is_refused_with_the_sizes():
    with pytest.raises(ProfileError, match="llama-33b needs 65 GB for weights and does not fit t4"):
        modelled_profile("t4", ["llama-33b"])


def test_every_modelled_figure_says_so_and_slower_means_slower():
    profile = modelled_profile("a100", ["llama3-8b", "nanodet"])
    assert all(speed.source.startswith("modelled:") for speed in (*profile.llm, *profile.video))
    slowed = profile.slowed(4.0)
    assert slowed.llm[0].decode_tokens_per_s == pytest.approx(profile.llm[0].decode_tokens_per_s / 4)
    assert slowed.video[0].frame_s == pytest.approx(profile.video[0].frame_s * 4)
    assert "slowed 4x" in slowed.source


def test_instant_is_instant_and_the_rest_is_not():
    assert all(speed.instant for speed in modelled_profile("instant", ["smollm2-135m"]).llm)
    assert not llm_speed(HARDWARE["h100"], LLM_SHAPES["yi-6b"]).instant
    with pytest.raises(ProfileError, match="no hardware 'abacus'; known are instant, xeon-edge"):
        modelled_profile("abacus", [])


def test_every_model_of_the_roofline_has_a_quality_and_better_encoding_is_no_worse():
    assert all(llm_quality(name) for name in LLM_SHAPES)
    assert all(vision_quality(name, 85) >= vision_quality(name, 50) > 0 for name in VISION_SHAPES)
    assert llm_quality("smollm2-135m:int4") < llm_quality("smollm2-135m:int8") < llm_quality("smollm2-135m:fp32")
    assert llm_quality("unheard-of") is None


def video_speed(**changes):
    return VideoSpeed("nanodet", "measured:here", 0.6, 0.03, **changes)


def test_a_measured_model_offers_what_was_measured_and_nothing_else():
    speeds = [
        video_speed(encode_quality=85, bytes_per_frame=9e3),
        video_speed(encode_quality=85, frame_stride=4, bytes_per_frame=9e3),
        video_speed(encode_quality=85, input_size=320, bytes_per_frame=4e3),
        video_speed(codec=Codec.H264, encode_quality=33, bytes_per_frame=1e3),
    ]
    arms = video_arms("n", speeds)
    assert [arm.arm_id for arm in arms] == [
        "n/nanodet@source/jpeg85",
        "n/nanodet@source/jpeg85/every4",
        "n/nanodet@320/jpeg85",
        "n/nanodet@source/h26433",
    ]
    assert [(a.input_size, a.codec, a.encode_quality, a.frame_stride, a.bytes_per_frame) for a in arms] == [
        (s.input_size, s.codec, s.encode_quality, s.frame_stride, s.bytes_per_frame) for s in speeds
    ]


def test_an_unmeasured_model_also_offers_a_harsher_encoding_with_fewer_bytes_and_less_quality():
    mild, harsh = video_arms("n", [video_speed(bytes_per_frame=1e4)])
    assert (mild.encode_quality, harsh.encode_quality) == (85, 50)
    assert harsh.bytes_per_frame < mild.bytes_per_frame
    assert harsh.quality < mild.quality


def test_one_configuration_twice_is_refused():
    with pytest.raises(ProfileError, match=r"nanodet@source/jpeg85 twice"):
        video_arms("n", [video_speed(), video_speed(bytes_per_frame=1.0)])


def test_a_profile_of_a_later_format_is_refused():
    document = profile_to_document(PROFILE)
    assert document["version"] == 1
    with pytest.raises(ProfileError, match="version 2"):
        profile_from_document(document | {"version": 2})
