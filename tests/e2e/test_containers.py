"""The same system as containers: it answers, outlives what is done to it, and leaves nothing.

One system for the whole file; the last test takes it down.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.e2e.containers_system import DEADLINE_S, NODES, ROOT, UP_S, Containers, call, until, why_no_engine

pytestmark = [
    pytest.mark.timeout(UP_S + 300),
    pytest.mark.skipif(bool(why_no_engine()), reason=f"no containers: {why_no_engine()}"),
]

PROJECT = "skyshore-e2e"
STOP_S = 5.0
BOUNDARY = "a-boundary-of-the-tests"


@pytest.fixture(scope="module")
def models() -> tuple[Path | None, str]:
    """The host's model cache, filled if need be; else None and what is missing."""
    from cli.up import MODELS, fetch_missing
    from skyshore.catalogue.store import cache_dir

    missing = fetch_missing((*MODELS, "bikes"), Console(stderr=True))
    return (None, "; ".join(missing)) if missing else (cache_dir(), "")


@pytest.fixture(scope="module")
def started(models: tuple[Path | None, str]) -> Iterator[Containers]:
    folder, _ = models
    system = Containers(PROJECT, environment={"SKYSHORE_MODELS": str(folder)} if folder else {})
    system.down()
    try:
        system.up()
        yield system
    finally:
        system.down()


@pytest.fixture
def system(started: Containers) -> Iterator[Containers]:
    """Whole at the start of a test, and again after it."""
    yield started
    started.heal()


@pytest.fixture
def real(system: Containers, models: tuple[Path | None, str]) -> Containers:
    """The system, if its nodes really compute."""
    folder, missing = models
    if folder is None:
        pytest.skip(f"models are not in the cache and cannot be fetched: {missing}")
    return system


def send_clip(url: str, clip: Path, **fields: object) -> str:
    """Upload a clip; returns the task id of the accepted job."""
    parts = [
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in {"deadline_s": DEADLINE_S, **fields}.items()
    ]
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{clip.name}"\r\n\r\n'
    body = "".join([*parts, head]).encode() + clip.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
    form = f"multipart/form-data; boundary={BOUNDARY}"
    return str(call(f"{url}/v1/video/detections", body, kind=form, deadline_s=DEADLINE_S)[0]["task_id"])


def job(system: Containers, task_id: str) -> dict[str, Any]:
    status, record = system.get(f"/v1/tasks/{task_id}")
    assert status == 200, record
    assert record["state"] != "failed", record
    return dict(record)


def finish(system: Containers, task_id: str) -> dict[str, Any]:
    """Wait for a job to be done; returns its result."""
    until(lambda: job(system, task_id)["state"] == "done", 2 * DEADLINE_S, f"job {task_id} done")
    return dict(system.get(f"/v1/tasks/{task_id}/result")[1])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of a moving square: enough segments to harm something in their middle."""
    from fractions import Fraction

    import av
    import numpy as np

    path = tmp_path_factory.mktemp("clip") / "square.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for index in range(60):
            picture = np.zeros((240, 320, 3), np.uint8)
            picture[80:160, 4 * index : 4 * index + 60] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


# ------------------------------------------------------------------------------------------------- it answers


def test_the_official_client_streams_a_chat_from_the_published_port(real: Containers) -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed: pip install 'openai>=2'")
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0, timeout=DEADLINE_S) as client:
        chunks = list(
            client.chat.completions.create(
                model="smollm2-135m",
                messages=[{"role": "user", "content": "What is the capital of France?"}],
                max_tokens=16,
                temperature=0,
                stream=True,
            )
        )
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "Paris" in "".join(choice.delta.content or "" for choice in deltas)
    assert len(deltas) > 3
    assert deltas[-1].finish_reason in ("stop", "length")


def test_objects_are_found_in_a_real_clip(real: Containers) -> None:
    from skyshore.catalogue.store import clip as catalogue_clip

    found = finish(real, send_clip(real.url, catalogue_clip("bikes"), frame_stride=10))
    labels = {box["label"] for frame in found["frames"] for box in frame["detections"] if box["score"] > 0.5}
    assert len(found["frames"]) == 25
    assert labels & {"person", "bicycle"}


def test_the_curl_lines_of_the_readme_work_on_containers(
    real: Containers, models: tuple[Path | None, str], tmp_path: Path
) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = [block for block in blocks if "curl " in block]
    assert len(lines) == 2, "one chat, one clip"
    script = "\n".join(lines).replace("http://127.0.0.1:8080", real.url)
    environment = {**os.environ, "SKYSHORE_MODELS": str(models[0])}
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        shell, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Paris" in done.stdout
    assert '"bicycle"' in done.stdout or '"person"' in done.stdout
    assert (tmp_path / "annotated.mp4").read_bytes()[4:8] == b"ftyp"


def test_starting_again_restarts_nothing(system: Containers) -> None:
    since = {service: system.inspect(service)["State"]["StartedAt"] for service in system.services()}
    system.compose("up", "-d", "--wait", timeout_s=UP_S)
    assert {service: system.inspect(service)["State"]["StartedAt"] for service in system.services()} == since


def test_every_node_says_what_computes_behind_it(system: Containers, models: tuple[Path | None, str]) -> None:
    engines = system.nodes()
    assert set(engines) == set(NODES)
    emulated = models[0] is None
    assert all(("emulated" in engine) is emulated for engine in engines.values()), engines


def test_a_node_without_models_says_so_and_emulates(system: Containers) -> None:
    bare = ["-e", "SKYSHORE_NODE_ID=bare", "-e", "SKYSHORE_NODE_ADVERTISE=", "-e", "SKYSHORE_MODELS=/nowhere"]
    name = f"{PROJECT}-bare"
    system.compose("run", "-d", "--no-deps", "--name", name, *bare, "edge-1")
    try:
        until(lambda: "bare" in system.nodes(), 120, "the bare node registered")
        assert "emulated" in system.nodes()["bare"]
        said = system.docker("logs", name)
        assert "models missing; this node runs EMULATED" in said.stdout + said.stderr
        assert "skyshore models fetch" in said.stdout + said.stderr
    finally:
        system.docker("rm", "-f", name)
        until(lambda: "bare" not in system.nodes(), 120, "the bare node gone")


# ------------------------------------------------------------------------------------------ it outlives harm


def test_a_node_killed_during_a_replay_costs_no_accepted_request(system: Containers, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    source = f"poisson rate=1.5 prompt_tokens=16 output_tokens=8 max_output_tokens=8 deadline_s={DEADLINE_S:g}"
    skyshore = [sys.executable, "-m", "cli"]
    make = [*skyshore, "traces", "make", str(trace), "--seconds", "14", "--seed", "4", "--llm", source]
    subprocess.run(make, check=True, capture_output=True)
    system.place_by("round_robin")
    replay = [*skyshore, "replay", str(trace), "--url", system.url, "--json"]
    began_s = time.time()
    playing = subprocess.Popen(replay, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: any(d["chosen"].startswith("edge-1") for d in decisions(system)), 120, "edge-1 got a request")
        time.sleep(max(0.0, began_s + 6 - time.time()))  # well into the trace
        system.docker("kill", system.container("edge-1"))
        killed_at_s = time.time()
        out, err = playing.communicate(timeout=300)
    finally:
        playing.kill()
    assert playing.returncode == 0, err
    result = json.loads(out)
    rows = [json.loads(line) for line in (tmp_path / "trace.result.requests.jsonl").read_text().splitlines()]
    assert len(rows) == result["schedule"]["requests"] > 10
    # A request whose first token was out when its node died is reported failed; every other one is answered.
    lost = [row for row in rows if row["status"] != "ok"]
    assert all(row["node_id"] == "edge-1" for row in lost), lost
    assert len(lost) <= 2, lost
    late = [d for d in decisions(system) if d["decided_at_s"] > killed_at_s + 5]  # the lease of a dead node is 3 s
    assert late, "the trace went on after the node was gone"
    assert not [d for d in late if d["chosen"].startswith("edge-1")]


def decisions(system: Containers) -> list[dict[str, Any]]:
    return list(system.get("/v1/decisions?limit=200")[1].get("decisions", ()))


def test_a_job_on_a_node_that_is_cut_off_finishes_on_another(system: Containers, clip: Path) -> None:
    system.place_by("cloud_only")
    task_id = send_clip(system.url, clip)
    until(lambda: any(d["chosen"].startswith("cloud-1") for d in decisions_of(system, task_id)), 120, "cloud-1 at work")
    with system.cut_off("cloud-1"):
        system.place_by("least_loaded")
        until(lambda: "cloud-1" not in system.nodes(), 120, "the lease ran out")
        result = finish(system, task_id)
    assert [frame["frame_index"] for frame in result["frames"]] == list(range(60))
    assert {segment["node"] for segment in result["segments"]} & {"edge-1", "edge-2"}


def decisions_of(system: Containers, task_id: str) -> list[dict[str, Any]]:
    return [decision for decision in decisions(system) if decision["task_id"].startswith(task_id)]


def test_accepted_jobs_outlive_the_store_and_ready_tells_the_truth_meanwhile(system: Containers, clip: Path) -> None:
    system.place_by("least_loaded")
    task_ids = [send_clip(system.url, clip) for _ in range(4)]  # more than are worked on at the same time
    gateway_since = system.inspect("gateway")["State"]["StartedAt"]
    system.docker("stop", system.container("redis"))
    try:
        status, body = system.get("/ready")
        assert status == 503
        assert "store" in body["missing"]
        assert system.get("/health")[0] == 200
    finally:
        system.docker("start", system.container("redis"))
    until(lambda: system.get("/ready")[0] == 200, 120, "ready again by itself")
    until(lambda: set(system.nodes()) >= set(NODES), 120, "every node registered again by itself")
    for task_id in task_ids:
        assert len(finish(system, task_id)["frames"]) == 60
    assert system.inspect("gateway")["State"]["StartedAt"] == gateway_since
    system.complete(4)


def test_a_gateway_that_is_killed_forgets_no_accepted_job(system: Containers, clip: Path) -> None:
    system.place_by("least_loaded")
    task_ids = [send_clip(system.url, clip) for _ in range(3)]
    system.docker("kill", system.container("gateway"))
    system.docker("start", system.container("gateway"))
    until(lambda: system.get("/ready")[0] == 200, 120, "ready again")
    for task_id in task_ids:
        assert len(finish(system, task_id)["frames"]) == 60


# ----------------------------------------------------------------------------------------- it keeps to itself


def test_containers_run_as_nobody_special(system: Containers) -> None:
    for service in system.services():
        about = system.inspect(service)
        host = about["HostConfig"]
        assert about["Config"]["User"] == "10001:10001", service
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert not host["CapAdd"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert host["Init"], service
        assert about["RestartCount"] == 0, service
        addresses = [bound["HostIp"] for ports in (host["PortBindings"] or {}).values() for bound in ports]
        assert addresses == (["127.0.0.1"] if service == "gateway" else []), service
        assert system.compose("exec", "-T", service, "touch", "/intruder", check=False).returncode != 0, service


def test_images_hold_what_their_process_needs_and_no_more(system: Containers) -> None:
    engines = {"torch", "onnxruntime", "onnx", "llguidance"}
    video = {"av", "cv2"}
    absent = {"profiler": engines | video, "scheduler": engines | video, "gateway": engines, "edge-1": {"torch"}}
    find = "import sys, importlib.util as u; print(*(n for n in sys.argv[1:] if u.find_spec(n)))"
    for service, names in absent.items():
        found = system.compose("exec", "-T", service, "python", "-c", find, *names).stdout.split()
        assert found == [], service


def test_stopping_is_quick_and_orderly_and_leaves_nothing(started: Containers) -> None:
    started.place_by("least_loaded")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(started.complete, 8)
        until(lambda: answer.done() or in_flight(started) > 0, 120, "a request in flight")
        began_s = time.monotonic()
        started.docker("stop", started.container("gateway"))
        assert answer.result()["x-skyshore-node"] in NODES  # accepted before, so answered
        answered_s = time.monotonic()
        assert answered_s - began_s < STOP_S + 2
    took_s = {}
    for service in started.services():
        began_s = time.time()
        started.docker("stop", started.container(service))
        state = started.inspect(service)["State"]
        # Status 0: it ended by itself within the grace of its compose file, after which the engine kills with 137.
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False), (service, state)
        took_s[service] = datetime.fromisoformat(state["FinishedAt"]).timestamp() - began_s
    print({service: f"{seconds:.1f} s" for service, seconds in took_s.items()})
    assert max(took_s.values()) < STOP_S + 1, took_s  # the engine itself takes a moment
    logs = started.logs()
    assert "Traceback" not in logs, logs[-6000:]
    assert "Task exception was never retrieved" not in logs
    started.down()
    label = f"label=com.docker.compose.project={PROJECT}"
    for kind in (["ps", "-a"], ["network", "ls"], ["volume", "ls"]):
        assert started.docker(*kind, "-q", "--filter", label).stdout == "", kind


def in_flight(system: Containers) -> float:
    """What the gateway's own metric says."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{system.url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("skyshore_requests_in_flight"))
