"""The kernel's shaper between two network namespaces of our own; skipped where there is none or we may not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.links.tc import IFB, commands, main, needs_netem, why_not
from skyshore.domain.errors import InvalidTask
from skyshore.links.settings import Direction, LinkSettings, Outage

RATE = 2.5e6
SENDER = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 5001)); size = int(sys.argv[2]); begin = time.monotonic()
s.sendall(bytes(size)); s.shutdown(socket.SHUT_WR); s.recv(1); print(time.monotonic() - begin)
"""
RECEIVER = """
import socket
s = socket.create_server(("0.0.0.0", 5001)); print("ready", flush=True); c, _ = s.accept()
while c.recv(1 << 16): pass
c.sendall(b"x"); c.close()
"""


def inside(space: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", space, *command]


@contextmanager
def two_spaces() -> Iterator[tuple[str, str]]:
    """A gateway at 10.77.0.1 and a node at 10.77.0.2, joined by a pair of devices called eth0."""
    gateway, node = (f"sky-{os.getpid()}-{side}" for side in "gn")
    try:
        for space in (gateway, node):
            subprocess.run(["ip", "netns", "add", space], check=True)
        subprocess.run(
            ["ip", "link", "add", "eth0", "netns", gateway, "type", "veth", "peer", "name", "eth0", "netns", node],
            check=True,
        )
        for space, address in ((gateway, "10.77.0.1/24"), (node, "10.77.0.2/24")):
            subprocess.run(inside(space, "ip", "address", "add", address, "dev", "eth0"), check=True)
            subprocess.run(inside(space, "ip", "link", "set", "eth0", "up"), check=True)
        yield gateway, node
    finally:
        for space in (gateway, node):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


def seconds(sender: str, receiver: str, address: str, size: int) -> float:
    listening = subprocess.Popen(inside(receiver, sys.executable, "-c", RECEIVER), stdout=subprocess.PIPE, text=True)
    assert listening.stdout is not None
    try:
        assert listening.stdout.readline() == "ready\n"
        sent = subprocess.run(
            inside(sender, sys.executable, "-c", SENDER, address, str(size)), capture_output=True, text=True, check=True
        )
    finally:
        listening.wait(20)
        listening.stdout.close()
    return float(sent.stdout)


def test_a_rate_is_kept_in_both_directions_within_five_percent(tmp_path: Path) -> None:
    if reason := why_not(netem=False):
        pytest.skip(reason)
    file = tmp_path / "links.json"
    up = {"rate_bytes_per_s": RATE}
    file.write_text(json.dumps([{"name": "n", "target": "x:1", "up": up, "down": {"rate_bytes_per_s": RATE / 2}}]))
    size = 2_500_000
    with two_spaces() as (gateway, node):
        free_s = seconds(gateway, node, "10.77.0.2", size)
        shaped = inside(node, sys.executable, "-m", "services.links.tc", str(file), "n")
        subprocess.run(shaped, check=True)
        up_s = min(seconds(gateway, node, "10.77.0.2", size) for _ in range(2))
        down_s = min(seconds(node, gateway, "10.77.0.1", size) for _ in range(2))
        subprocess.run([*shaped, "--remove"], check=True)
        freed_s = seconds(gateway, node, "10.77.0.2", size)
    # The link carries headers too: 66 of 1514 bytes.
    assert up_s == pytest.approx(1.045 * size / RATE, rel=0.05)
    assert down_s == pytest.approx(1.045 * 2 * size / RATE, rel=0.05)
    assert max(free_s, freed_s) < 0.5 * up_s


def test_delay_uses_netem_where_the_kernel_has_it() -> None:
    settings = LinkSettings(down=Direction(delay_s=0.03, jitter_s=0.002, loss=0.01))
    assert needs_netem(settings)
    (command,) = commands(settings, "eth0")
    assert " ".join(command).endswith("netem delay 30000us 2000us distribution normal loss 1%")
    if reason := why_not(netem=True):
        pytest.skip(f"the commands are right, but {reason}")
    with two_spaces() as (gateway, node):
        for command in commands(LinkSettings(down=Direction(delay_s=0.05)), "eth0"):
            subprocess.run(inside(node, *command), check=True)
        began_s = time.monotonic()
        subprocess.run(inside(gateway, "ping", "-c", "1", "10.77.0.2"), check=True, capture_output=True)
        assert time.monotonic() - began_s > 0.05


def test_rate_and_delay_are_chained_and_the_up_direction_is_shaped_on_its_own_device() -> None:
    direction = Direction(rate_bytes_per_s=1e6, delay_s=0.01)
    lines = [" ".join(command) for command in commands(LinkSettings(up=direction, down=direction), "eth9")]
    assert lines[0].startswith("tc qdisc add dev eth9 root handle 1: tbf rate 8000000bit burst 5000")
    assert lines[1].startswith("tc qdisc add dev eth9 parent 1: handle 2: netem")
    assert f"redirect dev {IFB}" in lines[5]
    assert lines[6].startswith(f"tc qdisc add dev {IFB} root handle 1: tbf")


def test_what_tc_cannot_do_is_left_to_the_relay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, word in (
        (LinkSettings(up=Direction(trace="lte.csv")), "traces and outages"),
        (LinkSettings(down=Direction(outages=(Outage(1, 2),))), "traces and outages"),
        (LinkSettings(shared="mast"), "shared"),
        (LinkSettings(up=Direction(rate_bytes_per_s=-1)), "must be positive"),
    ):
        with pytest.raises(InvalidTask, match=word):
            commands(settings, "eth0")
    file = tmp_path / "links.json"
    file.write_text('[{"name": "a", "target": "x:1"}]')
    assert main([str(file), "b", "--dry-run"]) == 1
    assert "the file has a" in capsys.readouterr().err
