"""What a container's health check says of a process that serves, one that drains, and one that is not there."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from skyshore.runtime.serve import grpc_server


async def _exit_and_words(*addresses: str) -> tuple[int | None, str]:
    command = (sys.executable, "-m", "skyshore.runtime.healthcheck", *addresses)
    check = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    _, words = await check.communicate()
    return check.returncode, words.decode()


async def test_a_serving_process_is_healthy_and_a_draining_one_is_not() -> None:
    async with grpc_server([], "127.0.0.1:0") as server:
        assert await _exit_and_words(server.address) == (0, "")
        await server.set_serving("", False)
        status, words = await _exit_and_words(server.address)
        assert status == 1
        assert "not serving" in words


async def test_an_absent_process_is_unhealthy_and_the_check_says_why() -> None:
    async with grpc_server([], "127.0.0.1:0") as server:
        address = server.address
    status, words = await _exit_and_words(address)
    assert status == 1
    assert address in words
    assert "UNAVAILABLE" in words


@pytest.fixture
def readiness() -> Iterator[tuple[str, dict[str, int]]]:
    """An HTTP server whose answer can be changed."""
    answer = {"status": 200}

    class HealthHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["status"])
            self.end_headers()
            self.wfile.write(b"no node has a lease")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), HealthHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/ready", answer
        server.shutdown()
        thread.join()


async def test_http_health_follows_the_status_code(readiness: tuple[str, dict[str, int]]) -> None:
    url, answer = readiness
    assert await _exit_and_words(url) == (0, "")
    answer["status"] = 503
    status, words = await _exit_and_words(url)
    assert status == 1
    assert "503: no node has a lease" in words


async def test_a_wrong_call_is_told_apart_from_an_unhealthy_process() -> None:
    status, words = await _exit_and_words()
    assert status == 2
    assert "usage" in words
