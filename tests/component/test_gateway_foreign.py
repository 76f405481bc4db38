"""Addresses, forms and web pages that a caller must not get far with."""

from __future__ import annotations

import pytest

from tests.component.test_gateway_bad_input import DETECT, refused, shared, w
from tests.fakes.gateway_services import World

__all__ = ["shared", "w"]  # fixtures

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("path", [DETECT, "/v1/video/classifications"])
@pytest.mark.parametrize(
    "url",
    [
        "file://[",
        "http://[::1",
        "file://[::1]/a",
        "http://a:b:c/",
        "//[",
        "file:///" + "a" * 5000,
        "file:///a%00",
        "\x00",
    ],
)
async def test_an_address_that_cannot_be_read_is_refused(w: World, path: str, url: str) -> None:
    response = await w.client.post(path, json={"url": url})
    assert response.status_code in (400, 403)
    assert response.json()["error"]["param"] == "url"


async def test_a_path_too_long_inside_the_folder_is_refused(w: World) -> None:
    response = await w.client.post(DETECT, json={"url": f"file://{w.deps.settings.gateway_media_root}/{'a' * 5000}"})
    refused(response, 400, "invalid_request", "url")


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=" + "a" * 300,
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary",
        "multipart/form-data;",
        "multipart/form-data; boundary*=utf-8''%zz",
        "multipart/form-data; boundary=\xff\xfe",
    ],
)
async def test_a_boundary_that_cannot_be_one_is_refused(w: World, content_type: str) -> None:
    response = await w.client.post(DETECT, content=b"x", headers={"content-type": content_type.encode("latin-1")})
    assert response.status_code == 400


async def test_endless_headers_of_a_part_are_refused(w: World) -> None:
    body = b"--b\r\n" + b"x: " + b"a" * 40_000 + b"\r\n\r\nx\r\n--b--\r\n"
    response = await w.client.post(DETECT, content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    refused(response, 400, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/chat/completions"), ("POST", DETECT), ("PUT", "/v1/policy"), ("POST", "/nothing")],
)
@pytest.mark.parametrize("origin", ["https://evil.example", "http://gateway.evil.example", "null"])
async def test_a_web_page_of_another_site_changes_nothing(w: World, method: str, path: str, origin: str) -> None:
    response = await w.client.request(method, path, content=b"{}", headers={"origin": origin})
    refused(response, 403, "permission_denied", "origin")


async def test_the_gateways_own_pages_and_other_clients_are_served(w: World) -> None:
    body = {"prompt": "x", "max_tokens": 1}
    own = {"origin": str(w.client.base_url).rstrip("/")}
    for headers in (own, {}):
        assert (await w.client.post("/v1/completions", json=body, headers=headers)).status_code == 200
    assert (await w.client.get("/v1/nodes", headers={"origin": "https://evil.example"})).status_code == 200


@pytest.mark.parametrize(
    ("names", "said"), [("persn", "did you mean 'person'?"), ("person,zzz", "classes are those of COCO")]
)
async def test_a_class_that_no_detector_finds_is_refused(w: World, names: str, said: str) -> None:
    response = await w.client.post(DETECT, files={"file": ("a.mp4", b"x")}, data={"classes": names})
    refused(response, 400, "invalid_request", "classes")
    assert said in response.json()["error"]["message"]
