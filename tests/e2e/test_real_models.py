"""Real models through all processes: the official client chats, people and bikes are found in a real clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.local_system import LocalSystem

pytestmark = pytest.mark.timeout(600)


def test_the_official_client_streams_a_chat(real: LocalSystem) -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed: pip install 'openai>=2'")
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        assert "smollm2-135m" in {model.id for model in client.models.list()}
        answer = client.chat.completions.with_raw_response.create(
            model="smollm2-135m",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(answer.parse())
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Paris" in text
    assert len([chunk for chunk in chunks if chunk.choices]) > 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")
    assert answer.headers["x-skyshore-node"] in ("edge-1", "edge-2", "cloud-1")


def test_objects_are_found_in_a_real_clip_and_drawn(real: LocalSystem) -> None:
    from rich.console import Console

    from cli.connection import GatewayApi
    from cli.demo.requests import detect
    from skyshore.catalogue.store import clip

    detected = detect(GatewayApi(real.url), clip("bikes"), 250, Console(stderr=True))
    labels = {box["label"] for frame in detected.result["frames"] for box in frame["detections"] if box["score"] > 0.5}
    assert len(detected.result["frames"]) == 250
    assert labels & {"person", "bicycle"}
    assert detected.movie[4:8] == b"ftyp"


def test_a_clip_is_named_by_the_sharded_classifier_of_the_cloud_node(real: LocalSystem, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")
    import httpx

    from tests.fakes.clips import make_action_clip

    clip = make_action_clip(tmp_path / "clip.mp4", "drive_left", 5)
    with httpx.Client(base_url=real.url, timeout=90) as client, clip.open("rb") as file:
        answer = client.post(
            "/v1/video/classifications", params={"wait": 60}, files={"file": file}, data={"min_quality": "0.95"}
        )
    assert answer.status_code == 200
    assert answer.json()["label"] == "drive_left"
    assert answer.json()["segments"][0]["node"] == "cloud-1"


def test_a_mixed_trace_is_served_by_real_models(real: LocalSystem, tmp_path: Path) -> None:
    trace = tmp_path / "mixed.jsonl"
    llm = "poisson rate=0.3 prompt_tokens=32 output_tokens=12 max_output_tokens=24 deadline_s=200"
    cameras = "count=1 fps=2 segment_s=4 clip=bikes deadline_s=200"
    real("traces", "make", str(trace), "--seconds", "15", "--seed", "2", "--llm", llm, "--cameras", cameras)
    result = real.json("replay", str(trace))
    assert result["all"]["errors"] == {}
    assert {group["group"] for group in result["by_kind"]} == {"llm", "video.detect"}
    assert result["all"]["joules_by_source"], "every served request is charged its energy"
    assert all(source.startswith(("measured:", "modelled:")) for source in result["all"]["joules_by_source"])
    assert result["all"]["figures"]["link_bytes"] > 0
    video = next(group for group in result["by_kind"] if group["group"] == "video.detect")
    assert video["figures"]["frames_per_s"] > 0
