"""Accuracy and cost of the link emulator: its process is separate, so the CPU counted is the relay's alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import uvloop

from benchmarks.result import Aim, BenchResult, Metric

REPEATS = 5
SECONDS = 2.0
"""Length of one bulk transfer."""
ROUND_TRIPS = 100
MEGABIT_BYTES = 1e6 / 8
RATES_MBIT_S = (10, 100)
DELAY_S = 0.020
SMALL_BYTES = 100


def run() -> BenchResult:
    """Start the emulator and measure it through plain sockets."""
    return uvloop.run(_measure())


async def _measure() -> BenchResult:
    server = await asyncio.start_server(_acknowledge, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]
    links: list[dict[str, object]] = [
        {"name": f"rate{rate}", "up": {"rate_bytes_per_s": rate * MEGABIT_BYTES}} for rate in RATES_MBIT_S
    ]
    links += [{"name": "delay", "up": {"delay_s": DELAY_S}, "down": {"delay_s": DELAY_S}}, {"name": "open"}]
    with _emulator([link | {"target": f"127.0.0.1:{target}"} for link in links]) as (pid, ports):
        results = [metric for rate in RATES_MBIT_S for metric in await _rate(pid, ports[f"rate{rate}"], rate)]
        results += await _delay(ports["delay"], ports["open"], target)
    server.close()
    await server.wait_closed()
    settings: dict[str, str | int | float | bool | None] = {
        "transfer_s": SECONDS,
        "round_trips": ROUND_TRIPS,
        "one_way_delay_ms": DELAY_S * 1000,
    }
    return BenchResult("links", settings, REPEATS, tuple(results))


async def _rate(pid: int, port: int, rate_mbit_s: int) -> list[Metric]:
    size = int(rate_mbit_s * MEGABIT_BYTES * SECONDS)
    errors, shares = [], []
    for _ in range(REPEATS):
        cpu_s, start_s = _cpu_s(pid), time.perf_counter()
        seconds = await _send(port, [size])
        elapsed_s = time.perf_counter() - start_s
        shares.append((_cpu_s(pid) - cpu_s) / elapsed_s * 100)
        errors.append(abs(size / seconds[0] / (rate_mbit_s * MEGABIT_BYTES) - 1) * 100)
    return [
        Metric.of_repeats(f"rate error at {rate_mbit_s} Mbit/s", errors, "%", aim=Aim(3.0)),
        Metric.of_repeats(f"relay CPU at {rate_mbit_s} Mbit/s", shares, "% of a core", aim=Aim(5.0)),
    ]


async def _delay(delayed: int, through: int, direct: int) -> list[Metric]:
    median_errors, p95_errors, timer_p95, added, bare = [], [], [], [], []
    for _ in range(REPEATS):
        timer_p95.append(await _timer_p95_ms())
        bare.append(statistics.median(await _send(direct, [SMALL_BYTES] * ROUND_TRIPS)) * 1000)
        added.append(statistics.median(await _send(through, [SMALL_BYTES] * ROUND_TRIPS)) * 1000)
        late_ms = sorted((s - 2 * DELAY_S) * 1000 for s in await _send(delayed, [SMALL_BYTES] * ROUND_TRIPS))
        median_errors.append(statistics.median(late_ms) / 2)
        p95_errors.append(late_ms[int(ROUND_TRIPS * 0.95)] / 2)
    return [
        Metric.of_repeats("one-way delay error p50", median_errors, "ms"),
        Metric.of_repeats(
            "one-way delay error p95",
            p95_errors,
            "ms",
            against="a bare timer of this machine, p95 of its lateness",
            against_samples=timer_p95,
            aim=Aim(2.0),
        ),
        Metric.of_repeats(
            "round trip through an open link", added, "ms", against="the same without a relay", against_samples=bare
        ),
    ]


async def _timer_p95_ms() -> float:
    """How late this machine wakes a sleeper: no emulator here can be more exact."""
    late_ms = []
    for _ in range(ROUND_TRIPS):
        start_s = time.perf_counter()
        await asyncio.sleep(DELAY_S)
        late_ms.append((time.perf_counter() - start_s - DELAY_S) * 1000)
    return sorted(late_ms)[int(ROUND_TRIPS * 0.95)]


async def _send(port: int, sizes: list[int]) -> list[float]:
    """Seconds until each message is acknowledged, one after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = []
    for size in sizes:
        payload = bytes(size)
        start_s = time.perf_counter()
        writer.write(size.to_bytes(4) + payload)
        await reader.readexactly(4)
        taken.append(time.perf_counter() - start_s)
    writer.close()
    return taken


async def _acknowledge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while head := await reader.readexactly(4):
            await reader.readexactly(int.from_bytes(head))
            writer.write(head)
    writer.close()


@contextmanager
def _emulator(links: list[dict[str, object]]) -> Iterator[tuple[int, dict[str, int]]]:
    """Run `python -m services.links`; yields its process id and the port of each link."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "links.json"
        file.write_text(json.dumps(links), encoding="utf-8")
        env = os.environ | {
            "SKYSHORE_LINKS_LISTEN": address,
            "SKYSHORE_LINKS_FILE": str(file),
            "SKYSHORE_LOG_LEVEL": "error",
        }
        process = subprocess.Popen([sys.executable, "-m", "services.links"], env=env)
        try:
            yield process.pid, _ports(address, process)
        finally:
            process.terminate()
            process.wait(10)


def _ports(address: str, process: subprocess.Popen[bytes]) -> dict[str, int]:
    end_s = time.monotonic() + 30
    while time.monotonic() < end_s and process.poll() is None:
        try:
            with urlopen(f"http://{address}/links", timeout=5) as answer:
                return {link["name"]: int(link["listen"].rpartition(":")[2]) for link in json.load(answer)}
        except URLError:
            time.sleep(0.1)
    raise RuntimeError("the link emulator did not start; its own message is above")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
