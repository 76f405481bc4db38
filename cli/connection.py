"""Finds the running system and sends requests to its gateway."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from skyshore.domain.errors import InvalidTask, NodeUnavailable, SkyshoreError

TIMEOUT_S = 10.0
UPLOAD_S = 600.0
"""For clips: the upload, and the time between two events of a task."""
BOUNDARY = "skyshore-part-9f3a1c"


def state_folder() -> Path:
    """`SKYSHORE_STATE_DIR`, or `.state` in the current folder."""
    return Path(os.environ.get("SKYSHORE_STATE_DIR") or ".state").absolute()


def gateway_url(given: str = "") -> str:
    """`given`, else `SKYSHORE_URL`, else the system that runs in the state folder.

    Raises:
        InvalidTask: the text is not the address of a gateway.
        NotRunning: no system runs in the state folder.
    """
    if url := given or os.environ.get("SKYSHORE_URL", ""):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidTask(f"'{url}' is not a gateway address like http://127.0.0.1:8080", param="url")
        return url.rstrip("/")
    from cli.launcher.state_file import StateFile  # noqa: PLC0415 (needs psutil, which a given address does not)

    return StateFile(state_folder()).running().gateway_url


def local_redis_url() -> str:
    """The store of the system that runs in the state folder; empty where none runs."""
    from cli.launcher.state_file import StateFile  # noqa: PLC0415 (as above)

    state = StateFile(state_folder()).read()
    return state.redis_url if state is not None and state.alive else ""


class GatewayApi:
    """JSON over HTTP, one call at a time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        """The JSON at `path`; raises as `put` does."""
        return self._call("GET", path, None)

    def put(self, path: str, body: object) -> Any:
        """Send JSON to `path`, and return the JSON that comes back.

        Raises:
            NodeUnavailable: no server answers at the address.
            SkyshoreError: the gateway refuses; message and code are those of the gateway.
        """
        return self._call("PUT", path, json.dumps(body).encode())

    def upload(self, path: str, name: str, data: bytes, fields: Mapping[str, str]) -> Any:
        """Send a file and form fields, and return the JSON that comes back. Raises as `put`."""
        head = f"--{BOUNDARY}\r\ncontent-disposition: form-data; name="
        parts = [f'{head}"{field}"\r\n\r\n{value}\r\n'.encode() for field, value in fields.items() if value]
        file = f'{head}"file"; filename="{name}"\r\n\r\n'.encode() + data
        body = b"".join([*parts, file, f"\r\n--{BOUNDARY}--\r\n".encode()])
        kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        with self._open(urllib.request.Request(self.url + path, body, kind), UPLOAD_S) as answer:
            return json.load(answer)

    def read(self, path: str) -> bytes:
        """The bytes at `path`; the gateway may have to produce them first. Raises as `put`."""
        with self._open(urllib.request.Request(self.url + path), UPLOAD_S) as answer:
            return bytes(answer.read())

    def task_states(self, task_id: str) -> Iterator[Any]:
        """The JSON of each state of a task until it is done.

        Raises:
            SkyshoreError: the task failed or was cancelled, or the stream ended before the task. Or as `put` raises.
        """
        with self._open(urllib.request.Request(f"{self.url}/v1/tasks/{task_id}/events"), UPLOAD_S) as answer:
            for state in _events(answer):
                yield state
                if state["state"] in ("failed", "cancelled"):
                    error = state.get("error") or {}
                    raise SkyshoreError(str(error.get("message", f"the task was {state['state']}")))
                if state["state"] == "done":
                    return
        raise SkyshoreError(f"the gateway closed the events of task {task_id} before its end; see `skyshore status`")

    @contextmanager
    def chat(self, body: Mapping[str, Any], service_class: str) -> Iterator[tuple[Message, Iterator[Any]]]:
        """Stream a chat completion: the headers of the answer, and the JSON of each chunk. Raises as `put`."""
        headers = {"content-type": "application/json", "x-skyshore-class": service_class}
        data = json.dumps({**body, "stream": True}).encode()
        with self._open(urllib.request.Request(f"{self.url}/v1/chat/completions", data, headers), UPLOAD_S) as answer:
            yield answer.headers, _events(answer)

    def _call(self, method: str, path: str, body: bytes | None) -> Any:
        headers = {"content-type": "application/json"} if body else {}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        with self._open(request, TIMEOUT_S) as answer:
            return json.load(answer)

    @contextmanager
    def _open(self, request: urllib.request.Request, timeout_s: float) -> Iterator[Any]:
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except OSError as error:
            raise NodeUnavailable(f"no gateway answers at {self.url} ({error}); see `skyshore status`") from error


def _events(lines: Iterable[bytes]) -> Iterator[Any]:
    """The JSON of each server-sent event. Our gateway writes the data of an event on one line."""
    for line in lines:
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            yield json.loads(line.removeprefix(b"data: "))


def _refusal(error: urllib.error.HTTPError) -> SkyshoreError:
    text = error.read(10_000).decode(errors="replace")
    try:
        body = json.loads(text)["error"]
        refusal = SkyshoreError(str(body["message"]), param=body.get("param"))
        refusal.code = str(body["code"])
    except (ValueError, KeyError, TypeError):
        refusal = SkyshoreError(f"the gateway answers {error.code}: {text[:500]}")
    return refusal
