"""A node is killed in the middle of many answers: each goes on elsewhere with the next word, or ends with one error."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any

import httpx
import pytest

from tests.e2e.local_system import LocalSystem

pytestmark = pytest.mark.timeout(300)

STREAMS, TOKENS, PROMPT = 16, 120, "one two three four five six seven"


def stream(url: str, model: str, begun: threading.Semaphore) -> tuple[str, str, Any]:
    """The node that began the answer, its text, and its last event."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": True,
        "max_tokens": TOKENS,
        "ignore_eos": True,
    }
    text, last, chunks = "", None, 0
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120.0) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: "):
                last = line.removeprefix("data: ")
                if last != "[DONE]" and (choices := json.loads(last).get("choices")):
                    text += choices[0]["delta"].get("content") or ""
                    chunks += 1
                    if chunks == 3:
                        begun.release()
        return response.headers["x-skyshore-node"], text, last


def test_answers_of_a_killed_node_go_on_elsewhere(skyshore: LocalSystem) -> None:
    skyshore("up", "--detach", "--any-ports", "--emulated", timeout_s=200)
    nodes = httpx.get(f"{skyshore.url}/v1/nodes").json()["nodes"]
    models = [(arm["model"], node["node_id"]) for node in nodes for arm in node["arms"] if arm["kind"] == "llm"]
    model, count = Counter(name for name, _ in models).most_common(1)[0]
    assert count >= 2
    victim = next(node_id for name, node_id in models if name == model)
    begun = threading.Semaphore(0)
    with ThreadPoolExecutor(STREAMS) as pool:
        asked = [pool.submit(stream, skyshore.url, model, begun) for _ in range(STREAMS)]
        for _ in range(STREAMS // 2):
            assert begun.acquire(timeout=60)
        skyshore.processes()[victim].kill()
        answers = [future.result() for future in asked]
    expected = " ".join(islice(cycle(PROMPT.split()), TOKENS))
    assert [(text, last) for _, text, last in answers] == [(expected, "[DONE]")] * STREAMS
    assert victim in {node_id for node_id, _, _ in answers}, "the victim had answers in work"
