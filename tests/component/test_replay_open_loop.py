"""The replayer against a real HTTP server whose behaviour is known."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loadgen.gateway_client import GatewayClient
from loadgen.http1 import HttpClient
from loadgen.pacing import LoadRun
from loadgen.payloads import ClipCut, payloads
from loadgen.result import ReplayResult
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.report.load_audit import Verdict
from skyshore.workload.arrival import Arrival
from skyshore.workload.schedule import Schedule, assemble

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install -e '.[gateway]'")


@dataclass
class Behaviour:
    """How the stand-in gateway serves: one request at a time, so that a queue builds up as theory says."""

    service_s: float = 0.0
    refuse: int = 0
    """HTTP status to answer instead; 0 serves."""
    cut_off: bool = False
    requests: list[dict[str, str]] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    uploads: dict[str, bytes] = field(default_factory=dict)
    callers: set[int] = field(default_factory=set)
    """Ports that requests came from: one a connection."""


def gateway(behaviour: Behaviour) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        behaviour.requests.append(headers)
        behaviour.callers.add(scope["client"][1])
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)

        async def start(status: int, kind: str, **extra: str) -> None:
            pairs = [(b"content-type", kind.encode())]
            pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in extra.items()]
            await send({"type": "http.response.start", "status": status, "headers": pairs})

        async def answer(status: int, value: object) -> None:
            await start(status, "application/json")
            await send({"type": "http.response.body", "body": json.dumps(value).encode()})

        async def event(value: object, more: bool = True) -> None:
            data = value if isinstance(value, str) else json.dumps(value)
            await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": more})

        path = scope["path"]
        if behaviour.refuse:
            await answer(behaviour.refuse, {"error": {"code": "queue_full", "message": "full"}})
        elif path == "/v1/completions":
            wanted = json.loads(body)
            await start(200, "text/event-stream", x_skyshore_node="edge-1", x_skyshore_policy="least_loaded")
            async with behaviour.turn:
                await event({"choices": [{"text": "a"}], "usage": None})
                await asyncio.sleep(behaviour.service_s)
            usage = {"prompt_tokens": 5, "completion_tokens": wanted["max_tokens"]}
            said = {"queue_ms": 3.0, "joules": 0.5, "energy_source": "modelled:x"}
            if not behaviour.cut_off:
                await event({"choices": [], "usage": usage, "skyshore": said})
                await event("[DONE]")
            await send({"type": "http.response.body", "body": b""})
        elif path == "/v1/video/detections":
            task_id = headers["x-request-id"]
            behaviour.uploads[task_id] = body
            await answer(202, {"task_id": task_id})
        elif path.endswith("/events"):
            await start(200, "text/event-stream")
            await event({"state": "running", "progress": 0.5})
            await asyncio.sleep(behaviour.service_s)
            await event({"state": "done"}, more=False)
        else:
            common = {"policy": "least_loaded", "up_bytes": 350, "down_bytes": 15, "energy_source": "measured:rapl"}
            segments = [
                {**common, "node": "edge-1", "tier": "edge", "frames": 2, "joules": 1.5},
                {**common, "node": "cloud-1", "tier": "cloud", "frames": 1, "joules": 1.0},
            ]
            await answer(200, {"segments": segments, "frames": [{}, {}, {}]})

    return app


@asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[str]:
    config = uvicorn.Config(gateway(behaviour), port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(60):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


def llm(t_s: float, **fields: Any) -> Arrival:
    return Arrival(t_s, "", TaskKind.LLM, prompt_tokens=5, output_tokens=4, **{"deadline_s": 5.0, **fields})


def schedule_of(arrivals: list[Arrival], duration_s: float) -> Schedule:
    return assemble([arrivals], duration_s=duration_s, seed=1, provenance=["test"])


def make_run(schedule: Schedule, url: str, cuts: dict[ClipCut, bytes] | None = None) -> LoadRun:
    return LoadRun(schedule.arrivals, GatewayClient(HttpClient(url), payloads(schedule.arrivals, cuts or {}, seed=1)))


async def played(schedule: Schedule, url: str, cuts: dict[ClipCut, bytes] | None = None) -> LoadRun:
    run = make_run(schedule, url, cuts)
    await run.play()
    return run


async def test_a_slow_server_does_not_slow_the_client_and_latency_counts_from_the_intended_time() -> None:
    # One request per 50 ms to a server that answers nobody before the last one came: a closed loop would wait for ever.
    schedule = schedule_of([llm(0.05 * k, deadline_s=600.0) for k in range(10)], 0.5)
    behaviour = Behaviour()
    loop = asyncio.get_running_loop()
    async with serving(behaviour) as url:
        async with behaviour.turn:
            run = make_run(schedule, url)
            playing = asyncio.create_task(run.play(start_delay_s=0.2))
            await asyncio.sleep(0)
            zero_s = loop.time() + 0.2
            while len(behaviour.requests) < 10:  # noqa: ASYNC110 - the stand-in has no event for it
                await asyncio.sleep(0.01)
            held_s = loop.time() - zero_s
        await playing
    assert held_s > 0.44
    for k, record in enumerate(run.records()):
        assert record.status is OutcomeStatus.OK
        assert record.t_sent_s is not None and record.t_sent_s - record.lag_s == pytest.approx(0.05 * k)
        # From when it was due, not from when it was sent: whatever the machine took on the way is in it.
        assert record.latency_s > held_s - 0.05 * k - 0.02


async def test_every_figure_of_a_streamed_answer_is_noted() -> None:
    behaviour = Behaviour(service_s=0.1)
    schedule = schedule_of([llm(0.0)], 0.1)
    async with serving(behaviour) as url:
        (record,) = (await played(schedule, url)).records()
    assert (record.outcome.node_id, record.policy) == ("edge-1", "least_loaded")
    assert (record.worker.prompt_tokens, record.worker.output_tokens) == (5, 4)
    assert record.tpot_s is not None and record.ttft_s is not None
    assert record.tpot_s == pytest.approx((record.latency_s - record.ttft_s) / 3)
    assert record.tpot_s >= 0.099 / 3
    assert record.ttft_s < record.latency_s
    assert (record.worker.queue_s, record.joules, record.energy_source) == (0.003, 0.5, "modelled:x")
    assert record.sent_bytes > 50
    assert record.received_bytes > 50
    assert behaviour.requests[0]["x-skyshore-deadline-s"] == "5"


async def test_a_video_request_is_uploaded_followed_and_its_result_fetched() -> None:
    behaviour = Behaviour(service_s=0.05)
    arrival = Arrival(0.0, "", TaskKind.VIDEO_DETECT, camera="gate", clip="c", frames=3, fps=3.0, deadline_s=5.0)
    schedule = schedule_of([arrival], 0.1)
    async with serving(behaviour) as url:
        (record,) = (await played(schedule, url, {ClipCut("c", 0, 3, 3.0): b"VIDEO" * 50_000})).records()
    assert record.status is OutcomeStatus.OK
    assert record.worker.frames == 3
    assert (record.outcome.node_id, record.tier, record.policy) == ("cloud-1,edge-1", "cloud,edge", "least_loaded")
    assert (record.link_bytes, record.joules, record.energy_source) == (730, 2.5, "measured:rapl")
    assert behaviour.uploads["r000000"].count(b"VIDEO") == 50_000


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Behaviour(refuse=429), OutcomeStatus.REJECTED, "queue_full"),
        (Behaviour(refuse=504), OutcomeStatus.DEADLINE_EXCEEDED, "queue_full"),
        (Behaviour(refuse=500), OutcomeStatus.FAILED, "queue_full"),
        (Behaviour(cut_off=True), OutcomeStatus.FAILED, "answer_cut_off"),
    ],
)
async def test_failures_are_infinite_latency_with_the_servers_word(
    behaviour: Behaviour, status: OutcomeStatus, code: str
) -> None:
    async with serving(behaviour) as url:
        (record,) = (await played(schedule_of([llm(0.0)], 0.1), url)).records()
    assert (record.status, record.error_code, record.latency_s) == (status, code, math.inf)


async def test_a_server_that_is_not_there_is_a_failed_request_not_a_crash() -> None:
    (record,) = (await played(schedule_of([llm(0.0)], 0.1), "http://127.0.0.1:9")).records()
    assert (record.status, record.error_code) == (OutcomeStatus.FAILED, "connection_lost")


async def test_connections_are_reused_between_requests_but_never_capped() -> None:
    one_after_another, together = Behaviour(), Behaviour(service_s=0.05)
    async with serving(one_after_another) as url:
        http = HttpClient(url)
        for _ in range(5):
            async with http.request("GET", "/v1/tasks/t/result") as response:
                await response.read()
        http.close()
    async with serving(together) as url:
        await played(schedule_of([llm(0.0) for _ in range(5)], 0.1), url)
    assert len(one_after_another.callers) == 1
    assert len(together.callers) == 5


async def test_a_stopped_run_leaves_a_valid_partial_result(tmp_path: Path) -> None:
    schedule = schedule_of([llm(0.05 * k, deadline_s=600.0) for k in range(2000)], 100.0)
    async with serving(Behaviour(service_s=0.08)) as url:
        run = make_run(schedule, url)
        playing = asyncio.create_task(run.play())
        while run.progress().succeeded < 5:  # noqa: ASYNC110 - a figure to read
            await asyncio.sleep(0.02)
        run.stop()
        run.stop()
        async with asyncio.timeout(30):
            await playing
    result = ReplayResult.of(schedule, run, url=url, policy="p", started_at_s=0.0)
    path = tmp_path / "out" / "result.json"
    rows_path = result.write(path)
    rows = [json.loads(line) for line in rows_path.read_text().splitlines()]
    whole = json.loads(path.read_text())
    statuses = {row["status"] for row in rows}
    assert 5 <= len(rows) < 2000
    assert statuses == {"ok", "cancelled"}
    assert whole["interrupted"] is True
    assert whole["played_s"] < 100
    assert whole["all"]["figures"]["requests"] == sum(row["status"] == "ok" for row in rows)
    assert whole["schedule"]["sha256"] == schedule.sha256


async def test_a_whole_run_is_audited_and_grouped(tmp_path: Path) -> None:
    arrivals = [llm(0.1 * k, service_class="interactive" if k % 2 else "batch") for k in range(10)]
    schedule = schedule_of(arrivals, 1.0)
    async with serving(Behaviour()) as url:
        run = await played(schedule, url)
    result = ReplayResult.of(schedule, run, url=url, policy="least_loaded", started_at_s=0.0)
    assert result.audit.verdict in Verdict  # which one is the machine's affair
    assert {finding.check for finding in result.audit.findings} >= {"share never sent", "p99 lag (s)", "rate error"}
    assert {summary.group for summary in result.groups["class"]} == {"interactive", "batch"}
    assert [summary.group for summary in result.groups["node"]] == ["edge-1"]
    assert result.whole.figures["attainment"] == 1.0
    assert result.whole.joules_by_source == {"modelled:x": 5.0}
    assert result.client_cpu_share > 0
    titles = [table.title for table in result.tables()]
    assert "least_loaded" in titles[0]
    assert "Load audit" in titles[-1]
