"""Makes the faults of a scenario happen to a live system, by the clock of its workload."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator, Sequence

from skyshore.domain.errors import NodeUnavailable
from skyshore.scenario.schema import FaultTable

HTTP_S = 5.0


def restart_links(links_url: str, in_s: float) -> None:
    """Experiment time of all links will be 0 then, so that traces and planned outages begin with the workload.

    Nothing happens where no links are emulated, that is, for an empty address.
    """
    if not links_url:
        return
    body = json.dumps({"in_s": in_s}).encode()
    request = urllib.request.Request(f"{links_url}/restart", body, {"content-type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=HTTP_S):
        return


async def play_faults(door: str, faults: Sequence[FaultTable], zero_s: float) -> None:
    """Lose, boot and slow down nodes when the scenario says; `zero_s` is the loop's time at which the schedule begins.

    `door` is the launcher's socket.

    Outages are not played here: the links plan them by their own clock.

    Raises:
        NodeUnavailable: the launcher refused.
    """
    loop = asyncio.get_running_loop()
    for at_s, act, node_id, slowdown in sorted(_acts(faults)):
        await asyncio.sleep(max(0.0, zero_s + at_s - loop.time()))
        reader, writer = await asyncio.open_unix_connection(door)
        try:
            writer.write(json.dumps({"do": act, "process": node_id, "slowdown": slowdown}).encode() + b"\n")
            said = json.loads(await reader.readline())
        finally:
            writer.close()
        if "error" in said:
            raise NodeUnavailable(f"the launcher refused to {act} {node_id}: {said['error']}")


def _acts(faults: Sequence[FaultTable]) -> Iterator[tuple[float, str, str, float]]:
    """When, what, to which node, how much slower."""
    undone = {"crash": "boot", "drift": "drift"}
    for fault in faults:
        if fault.kind == "outage":
            continue
        yield fault.at_s, fault.kind, fault.node, fault.slowdown
        if fault.for_s is not None and fault.kind in undone:
            yield fault.at_s + fault.for_s, undone[fault.kind], fault.node, 1.0
