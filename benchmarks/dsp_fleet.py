"""The DSP bench's ranks: one process each, in network namespaces joined by shaped links where the host allows it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skyshore.domain.errors import Internal, NodeUnavailable

_SUBNET = "10.77.0"
MTU = "9000"
"""Jumbo frames, as cluster networks use: with 1500 bytes headers and acknowledgements add 6 % to every method."""


def why_no_namespaces() -> str:
    """Reason for which links cannot be shaped here; empty when they can."""
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"no {' and '.join(missing)} here (apt-get install iproute2)"
    name = f"skprobe{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces are not allowed here ({tried.stderr.strip()})"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


@dataclass(slots=True)
class Network:
    """A namespace per rank and a bridge in one of its own, so that nothing of the host's network is touched."""

    prefix: str
    ranks: int

    def namespace(self, rank: int) -> str:
        """Name of a rank's namespace."""
        return f"{self.prefix}r{rank}"

    def address(self, rank: int) -> str:
        """The rank's address."""
        return f"{_SUBNET}.{rank + 1}"

    def shape(self, rate_mbit: int | None) -> None:
        """Limit both directions of every rank's link; None lifts the limit."""
        for rank in range(self.ranks):
            for where, device in ((self.namespace(rank), "eth0"), (self._bridge, f"v{rank}")):
                inside = ["ip", "netns", "exec", where, "tc", "qdisc"]
                # There is nothing to delete the first time.
                subprocess.run([*inside, "del", "dev", device, "root"], capture_output=True, check=False)
                if rate_mbit is not None:
                    # The bucket must hold a few packets at any rate, yet be small beside what is measured.
                    limits = ["rate", f"{rate_mbit}mbit", "burst", f"{max(32, rate_mbit // 8)}kb", "latency", "400ms"]
                    _run([*inside, "add", "dev", device, "root", "tbf", *limits])

    @property
    def _bridge(self) -> str:
        return f"{self.prefix}b"

    def build(self) -> None:
        """Make namespaces, bridge and links."""
        _ip("netns", "add", self._bridge)
        _ip("-n", self._bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._bridge, "link", "set", "br0", "up")
        for rank in range(self.ranks):
            inside = self.namespace(rank)
            _ip("netns", "add", inside)
            peer = ["peer", "name", "eth0", "mtu", MTU, "netns", inside]
            _ip("-n", self._bridge, "link", "add", f"v{rank}", "mtu", MTU, "type", "veth", *peer)
            _ip("-n", self._bridge, "link", "set", f"v{rank}", "master", "br0", "up")
            _ip("-n", inside, "addr", "add", f"{self.address(rank)}/24", "dev", "eth0")
            _ip("-n", inside, "link", "set", "eth0", "up")
            _ip("-n", inside, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Take everything away; interfaces go with their namespaces."""
        for name in (self._bridge, *(self.namespace(rank) for rank in range(self.ranks))):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Internal(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


class RankFleet:
    """Rank processes that run the same case together."""

    def __init__(self, size: int, network: Network | None) -> None:
        self.size, self.network = size, network
        self._ranks: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Start every rank; they find each other through the first."""
        host = self.network.address(0) if self.network else "127.0.0.1"
        port = 29600 if self.network else _free_port()
        for rank in range(self.size):
            program = [sys.executable, "-m", "benchmarks.dsp_rank", f"--rank={rank}", f"--world={self.size}"]
            command = [*program, f"--host={host}", f"--port={port}"]
            environment = {
                **os.environ,
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
                "TORCH_CPP_LOG_LEVEL": "ERROR",
            }
            if self.network:
                command = ["ip", "netns", "exec", self.network.namespace(rank), *command]
                environment |= {"GLOO_SOCKET_IFNAME": "eth0", "SKYSHORE_BENCH_NETNS": "1"}
                # The namespaces have no name server, which torch would mention for every connection.
                environment |= {"TORCH_CPP_LOG_LEVEL": "ERROR"}
            pipe = subprocess.PIPE
            self._ranks.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment))

    def run(self, case: dict[str, Any]) -> list[dict[str, Any]]:
        """Answers of the ranks in the case's group.

        Raises:
            NodeUnavailable: a rank ended early.
        """
        for rank in self._ranks:
            if rank.stdin is not None:
                rank.stdin.write(json.dumps(case) + "\n")
                rank.stdin.flush()
        answers = []
        for index, rank in enumerate(self._ranks):
            line = rank.stdout.readline() if rank.stdout is not None else ""
            if not line:
                raise NodeUnavailable(f"bench rank {index} ended; its last words are on stderr")
            answers.append(json.loads(line))
        return answers[: case["n"]]

    def stop(self) -> None:
        """End every rank."""
        for rank in self._ranks:
            rank.kill()
            rank.wait()


@contextlib.contextmanager
def fleet(size: int, *, namespaces: bool) -> Iterator[RankFleet]:
    """Ranks that run until the block ends, with or without links of their own."""
    network = Network(f"sk{os.getpid()}", size) if namespaces else None
    ranks = RankFleet(size, network)
    try:
        if network is not None:
            network.build()
        ranks.start()
        yield ranks
    finally:
        ranks.stop()
        if network is not None:
            network.remove()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
