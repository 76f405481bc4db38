"""Shapes a link with `tc` of the kernel: `python -m services.links.tc FILE NAME --device eth0`.

Run it in the network namespace of a node (its container) with CAP_NET_ADMIN. Traffic that leaves the device is the down
direction of the link; traffic that enters is the up direction and is shaped on an `ifb` device. Rates are token buckets
(`tbf`). Delay, jitter and loss need `netem`, which some kernels lack. Traces, outages and shared uplinks need the
relay.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from services.links.app import read_links
from skyshore.domain.errors import InvalidTask, SkyshoreError
from skyshore.links.settings import Direction, LinkSettings, problems

BURST_S = 0.005
"""Length of a burst; equal to that of the relay."""
MIN_BURST_BYTES = 3000
LATENCY = "400ms"
"""Bytes that would wait longer are dropped; the sender then slows down."""
IFB, TRY = "ifb-skyshore", "ifb-try"
INGRESS = "ffff:"

Command = tuple[str, ...]


def commands(settings: LinkSettings, device: str) -> list[Command]:
    """The commands that shape `device`. Runs nothing.

    Raises:
        InvalidTask: `tc` cannot apply these settings.
    """
    for word, direction in (("up", settings.up), ("down", settings.down)):
        if found := [*problems(direction), *_unsupported(direction, settings)]:
            raise InvalidTask(f"{word}: {found[0]}", param=word)
    chosen = _shaped(settings.down, device)
    if up := _shaped(settings.up, IFB):
        everything = ("protocol", "all", "u32", "match", "u32", "0", "0")
        onward = ("action", "mirred", "egress", "redirect", "dev", IFB)
        chosen += [
            ("ip", "link", "add", IFB, "type", "ifb"),
            ("ip", "link", "set", IFB, "up"),
            ("tc", "qdisc", "add", "dev", device, "handle", INGRESS, "ingress"),
            ("tc", "filter", "add", "dev", device, "parent", INGRESS, *everything, *onward),
            *up,
        ]
    return chosen


def removal(device: str) -> list[Command]:
    """The commands that undo `commands`; each fails if there is nothing to undo."""
    return [
        ("tc", "qdisc", "del", "dev", device, "root"),
        ("tc", "qdisc", "del", "dev", device, "ingress"),
        ("ip", "link", "del", IFB),
    ]


def needs_netem(settings: LinkSettings) -> bool:
    """Whether the settings need `netem`: a delay, jitter or loss."""
    return any(each.delay_s or each.jitter_s or each.loss for each in (settings.up, settings.down))


def why_not(*, netem: bool) -> str:
    """Why `tc` cannot shape here; empty if it can. Tries it on a temporary device."""
    if missing := [name for name in ("tc", "ip") if shutil.which(name) is None]:
        return f"{missing[0]} is not installed (package iproute2)"
    shaper = ("netem", "delay", "1ms") if netem else ("tbf", "rate", "1mbit", "burst", "15000", "latency", LATENCY)
    try:
        for command in (("ip", "link", "add", TRY, "type", "ifb"), ("tc", "qdisc", "add", "dev", TRY, "root", *shaper)):
            tried = subprocess.run(command, capture_output=True, text=True, check=False)
            if tried.returncode:
                return f"{command[-1] if command[0] == 'ip' else shaper[0]} does not work here: {tried.stderr.strip()}"
    finally:
        subprocess.run(("ip", "link", "del", TRY), capture_output=True, check=False)
    return ""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.links.tc", description=__doc__)
    parser.add_argument("file", type=Path, help="JSON list of links, as for the relay")
    parser.add_argument("name", help="name of the link")
    parser.add_argument("--device", default="eth0")
    parser.add_argument("--remove", action="store_true", help="undo the shaping")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    options = parser.parse_args(arguments)
    try:
        chosen = removal(options.device) if options.remove else _of_file(options.file, options.name, options.device)
        if options.dry_run:
            print("\n".join(" ".join(command) for command in chosen))
            return 0
        return _run(chosen, keep_going=options.remove)
    except (SkyshoreError, OSError, ValueError) as error:
        print(f"links: {error}", file=sys.stderr)
        return 1


def _of_file(file: Path, name: str, device: str) -> list[Command]:
    links = {link.name: link for link in read_links(file)}
    if name not in links:
        raise InvalidTask(f"no link '{name}' in {file}; the file has {', '.join(links)}", param="name")
    settings = links[name].to_domain()
    if reason := why_not(netem=needs_netem(settings)):
        raise InvalidTask(f"{reason}; use the relay instead: `python -m services.links`")
    return commands(settings, device)


def _run(chosen: Sequence[Command], *, keep_going: bool) -> int:
    status = 0
    for command in chosen:
        status = subprocess.run(command, check=False).returncode
        if status and not keep_going:
            return status
    return 0 if keep_going else status


def _unsupported(direction: Direction, settings: LinkSettings) -> list[str]:
    found = []
    if direction.trace or direction.outages:
        found.append("traces and outages follow the clock of the workload, which tc cannot; use the relay")
    if settings.shared:
        found.append("an uplink shared by several nodes is not one device; use the relay")
    return found


def _shaped(direction: Direction, device: str) -> list[Command]:
    rate = direction.rate_bytes_per_s
    chain: list[tuple[str, ...]] = []
    if not math.isinf(rate):
        burst = max(MIN_BURST_BYTES, round(rate * BURST_S))
        chain.append(("tbf", "rate", f"{round(8 * rate)}bit", "burst", str(burst), "latency", LATENCY))
    if direction.delay_s or direction.jitter_s or direction.loss:
        words = ["netem", "delay", f"{1e6 * direction.delay_s:.0f}us"]
        words += [f"{1e6 * direction.jitter_s:.0f}us", "distribution", "normal"] if direction.jitter_s else []
        words += ["loss", f"{100 * direction.loss:g}%"] if direction.loss else []
        chain.append(tuple(words))
    found = []
    for place, shaper in enumerate(chain):
        where = ("root",) if place == 0 else ("parent", f"{place}:")
        found.append(("tc", "qdisc", "add", "dev", device, *where, "handle", f"{place + 1}:", *shaper))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
