"""Every kind of bad input gets its own clear answer, and the gateway serves on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
import pytest_asyncio

from tests.fakes.clips import make_clip
from tests.fakes.gateway_services import FakeNode, World, world

CHAT, COMPLETION, DETECT = "/v1/chat/completions", "/v1/completions", "/v1/video/detections"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
LIMIT_BYTES = 200_000


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    tmp_path = tmp_path_factory.mktemp("gateway")
    root = tmp_path / "media"
    root.mkdir()
    make_clip(root / "inside.mp4")
    make_clip(tmp_path / "outside.mp4")
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "folder").mkdir()
    async with world(
        tmp_path / "state",
        FakeNode("n"),
        gateway_media_root=root,
        gateway_max_upload_bytes=LIMIT_BYTES,
        gateway_max_body_bytes=50_000,
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def w(shared: World) -> AsyncIterator[World]:
    yield shared
    # Whatever was sent, the next good request is answered.
    assert (await shared.client.post(CHAT, json=ASK)).status_code == 200


def refused(response: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code, error
    assert error["message"]
    assert error["type"]
    if param is not None:
        assert error["param"] == param, error


CHAT_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**12}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_completion_tokens": -5}, "max_completion_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 99}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"seed": 2**80}, "seed"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": 5}, "stop"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"top_logprobs": 2}, ""),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"stream": "yes"}, "stream"),
    ({"model": 7}, "model"),
]


@pytest.mark.parametrize(("fields", "param"), CHAT_MISTAKES, ids=lambda value: json.dumps(value)[:40])
async def test_wrong_field_of_a_chat_is_named(w: World, fields: dict[str, Any], param: str) -> None:
    refused(await w.client.post(CHAT, json={**ASK, **fields}), 400, "invalid_request", param or None)


@pytest.mark.parametrize(
    "prompt", ["", [], [[]], [""], None, [-1], [2**32], [1, "a"], ["a"] * 17, 5, {"text": "a"}], ids=repr
)
async def test_wrong_prompt_of_a_completion_is_refused(w: World, prompt: Any) -> None:
    response = await w.client.post(COMPLETION, json={"prompt": prompt})
    refused(response, 400, "invalid_request")
    assert (response.json()["error"]["param"] or "prompt").startswith("prompt")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 5000, b'{"messages": NaN}', b'{"prompt":"\\ud800"}'],
    ids=repr,
)
@pytest.mark.parametrize("path", [CHAT, COMPLETION, DETECT])
async def test_malformed_json(w: World, path: str, body: bytes) -> None:
    response = await w.client.post(path, content=body, headers={"content-type": "application/json"})
    refused(response, 400, "invalid_request")


async def test_lone_surrogate_in_a_message_is_refused(w: World) -> None:
    body = b'{"messages":[{"role":"user","content":"\\ud800"}]}'
    refused(
        await w.client.post(CHAT, content=body, headers={"content-type": "application/json"}), 400, "invalid_request"
    )


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png"])
@pytest.mark.parametrize("path", [CHAT, COMPLETION, DETECT])
async def test_wrong_content_type(w: World, path: str, kind: str) -> None:
    response = await w.client.post(path, content=json.dumps(ASK), headers={"content-type": kind})
    refused(response, 400, "invalid_request", "content-type")


async def test_unknown_model_is_404(w: World) -> None:
    refused(await w.client.post(CHAT, json={**ASK, "model": "gpt-9"}), 404, "not_found", "model")
    refused(await w.client.get("/v1/models/gpt-9"), 404, "not_found", "model")


async def test_prompt_longer_than_the_context(w: World) -> None:
    messages = [{"role": "user", "content": "word " * 101}]
    response = await w.client.post(CHAT, json={**ASK, "messages": messages})
    refused(response, 400, "context_length_exceeded")
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_prompt_and_max_tokens_longer_than_the_context(w: World) -> None:
    refused(await w.client.post(CHAT, json={**ASK, "max_tokens": 100}), 400, "context_length_exceeded", "max_tokens")
    assert (await w.client.post(CHAT, json={**ASK, "max_tokens": 99})).status_code == 200


async def test_body_over_the_limit_is_413(w: World) -> None:
    messages = [{"role": "user", "content": "x" * 60_000}]
    refused(await w.client.post(CHAT, json={**ASK, "messages": messages}), 413, "payload_too_large")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Skyshore-Class", "royal"),
        ("X-Skyshore-Deadline-S", "soon"),
        ("X-Skyshore-Deadline-S", "-1"),
        ("X-Skyshore-Deadline-S", "nan"),
        ("X-Skyshore-Deadline-S", "inf"),
        ("X-Skyshore-Deadline-S", "1e9"),
        ("X-Skyshore-Min-Quality", "2"),
    ],
)
async def test_wrong_header_is_named(w: World, header: str, value: str) -> None:
    refused(await w.client.post(CHAT, json=ASK, headers={header: value}), 400, "invalid_request", header.lower())


async def test_unknown_paths_methods_policies_and_numbers(w: World) -> None:
    refused(await w.client.get("/v1/nothing"), 404, "not_found")
    refused(await w.client.get(CHAT), 405, "method_not_allowed")
    refused(await w.client.put("/v1/policy", json={"policy": "oracle"}), 404, "not_found", "policy")
    refused(await w.client.put("/v1/policy", json={}), 400, "invalid_request", "policy")
    refused(await w.client.get("/v1/decisions?limit=-1"), 400, "invalid_request", "limit")
    refused(await w.client.get("/v1/tasks/" + "x" * 500), 404, "not_found")


# ------------------------------------------------------------------------------------------------- clips


async def send(w: World, data: bytes, **fields: str) -> httpx.Response:
    before = await asyncio.to_thread(kept, w)
    response = await w.client.post(DETECT, files={"file": ("clip.mp4", data)}, data=fields)
    if response.status_code != 202:
        assert await asyncio.to_thread(kept, w) == before, "a refused clip was kept"
    return response


def kept(w: World) -> list[Path]:
    return sorted((w.deps.settings.state_dir / "uploads").iterdir())


async def test_not_a_video(w: World) -> None:
    for data in (b"this is no video at all\n" * 50, b"\0" * 5000, b"GIF89a", b"<html></html>"):
        response = await send(w, data)
        refused(response, 422, "invalid_media", "file")
        assert response.json()["error"]["message"].startswith("the upload is no video file")


async def test_what_the_page_says_of_failures_is_what_callers_get(w: World) -> None:
    page = (await w.client.get("/openapi.json")).json()
    schema = {"$ref": "#/components/schemas/Error"}
    for operations in page["paths"].values():
        for operation in operations.values():
            failures = {code: said for code, said in operation["responses"].items() if code[0] in "45"}
            assert failures
            assert all(said["content"]["application/json"]["schema"] == schema for said in failures.values())


async def test_what_is_not_supported_is_said_so(w: World) -> None:
    for field, value in (("tools", [{"type": "function", "function": {"name": "f"}}]), ("logit_bias", {"1": 1.0})):
        body = {"messages": [{"role": "user", "content": "hi"}], field: value}
        response = await w.client.post("/v1/chat/completions", json=body)
        refused(response, 400, "invalid_request", field)
        assert response.json()["error"]["message"] == f"{field} is not supported; leave it out"


async def test_empty_file_and_missing_file(w: World) -> None:
    refused(await send(w, b""), 400, "invalid_request", "file")
    response = await w.client.post(DETECT, files={"movie": ("clip.mp4", b"x")})
    refused(response, 400, "invalid_request", "file")


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("share", [0.3, 0.6])
async def test_truncated_clip(w: World, tmp_path: Path, suffix: str, share: float) -> None:
    options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    clip = make_clip(tmp_path / f"whole{suffix}", frames=100, width=160, height=120, **options)
    data = await asyncio.to_thread(clip.read_bytes)
    assert (await send(w, data)).status_code == 202
    refused(await send(w, data[: int(len(data) * share)]), 422, "invalid_media")


async def test_zero_frame_clip(w: World, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "empty.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    data = (tmp_path / "empty.mp4").read_bytes()
    assert data
    refused(await send(w, data), 422, "invalid_media")


async def test_sound_without_pictures(w: World, tmp_path: Path) -> None:
    import wave

    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    refused(await send(w, (tmp_path / "sound.wav").read_bytes()), 422, "invalid_media")


async def test_frame_of_20k_by_20k(w: World) -> None:
    for side in (20_000, 12_000):
        # The header is all there is, and must be enough: a frame of this YUV4MPEG stream would take 600 MB.
        data = b"YUV4MPEG2 W%d H%d F25:1 Ip A1:1 C420jpeg\nFRAME\n" % (side, side) + bytes(1000)
        refused(await send(w, data), 422, "invalid_media")


async def test_upload_over_the_limit_is_refused_by_its_length_and_by_its_bytes(w: World) -> None:
    refused(await send(w, b"x" * (LIMIT_BYTES + 70_000)), 413, "payload_too_large", "file")

    async def unannounced() -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 10_000

    response = await w.client.post(
        DETECT, content=unannounced(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    refused(response, 413, "payload_too_large", "file")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"no boundary in here"),
        ("multipart/form-data; boundary=b", b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\ncut off'),
        ("multipart/form-data; boundary=b", b""),
    ],
)
async def test_malformed_form(w: World, kind: str, body: bytes) -> None:
    refused(await w.client.post(DETECT, content=body, headers={"content-type": kind}), 400, "invalid_request")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("deadline_s", "-1"),
        ("deadline_s", "nan"),
        ("deadline_s", "soon"),
        ("min_quality", "3"),
        ("class", "royal"),
        ("frame_stride", "0"),
        ("min_score", "2"),
        ("classes", "x" * 100),
    ],
)
async def test_wrong_form_field_is_named(w: World, tmp_path: Path, field: str, value: str) -> None:
    clip = make_clip(tmp_path / "c.mp4")
    response = await send(w, await asyncio.to_thread(clip.read_bytes), **{field: value})
    refused(response, 400, "invalid_request")
    assert response.json()["error"]["param"].split(".")[0] == field


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("file:///etc/passwd", 403, "permission_denied"),
        ("file://{root}/../outside.mp4", 403, "permission_denied"),
        ("file://{root}/%2e%2e/outside.mp4", 403, "permission_denied"),
        ("file://{root}/link.mp4", 403, "permission_denied"),
        ("file://{root}/nothing.mp4", 404, "not_found"),
        ("file://{root}/folder", 404, "not_found"),
        ("file://elsewhere{root}/inside.mp4", 400, "invalid_request"),
        ("http://127.0.0.1:1/clip.mp4", 400, "invalid_request"),
        ("inside.mp4", 400, "invalid_request"),
        ("file://{root}/a%00b", 400, "invalid_request"),
    ],
)
async def test_url_outside_the_folder_or_of_another_kind(w: World, url: str, status: int, code: str) -> None:
    root = w.deps.settings.gateway_media_root
    refused(await w.client.post(DETECT, json={"url": url.replace("{root}", str(root))}), status, code, "url")


async def test_json_without_url(w: World) -> None:
    refused(await w.client.post(DETECT, json={"classes": ["person"]}), 400, "invalid_request", "url")


async def test_no_folder_may_be_read_unless_it_is_set(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "c.mp4")
    async with world(tmp_path / "s", FakeNode("n")) as running:
        refused(await running.client.post(DETECT, json={"url": clip.as_uri()}), 403, "permission_denied", "url")


async def test_caller_that_leaves_in_the_middle_of_an_upload_leaves_nothing_behind(w: World) -> None:
    before = await asyncio.to_thread(kept, w)
    _, writer = await asyncio.open_connection("127.0.0.1", w.port)
    kind = "multipart/form-data; boundary=b"
    head = f"POST {DETECT} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: 9999\r\n\r\n"
    writer.write(head.encode() + b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nxxx')
    await writer.drain()

    async def begun() -> bool:
        return await asyncio.to_thread(kept, w) != before

    async def gone() -> bool:
        return await asyncio.to_thread(kept, w) == before

    await w.eventually(begun)
    writer.close()
    await w.eventually(gone)


async def test_head_is_answered_where_probes_send_it(w: World) -> None:
    for path in ("/health", "/metrics"):
        assert (await w.client.head(path)).status_code == 200
