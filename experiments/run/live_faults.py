"""Plays the faults of a scenario against a live system, by the clock of its workload."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Sequence

from skyshore.domain.errors import NodeUnavailable
from skyshore.scenario.faults import FaultTable, node_effects

HTTP_S = 5.0


def restart_links(links_url: str, in_s: float) -> None:
    """Set the experiment time of all links to 0 in `in_s` seconds: traces and planned outages start with the workload.

    An empty address means that no link is emulated; then nothing happens.
    """
    if not links_url:
        return
    body = json.dumps({"in_s": in_s}).encode()
    request = urllib.request.Request(f"{links_url}/restart", body, {"content-type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=HTTP_S):
        return


async def play_faults(control_socket: str, faults: Sequence[FaultTable], zero_s: float) -> None:
    """Stop, start and slow down nodes at the times of the scenario.

    Effects on links are not played here: the links plan them by their own clock.

    Args:
        control_socket: path of the launcher's socket.
        faults: those of the scenario.
        zero_s: the loop's time at which the workload starts.

    Raises:
        NodeUnavailable: the launcher refused.
    """
    loop = asyncio.get_running_loop()
    for at_s, node_id, effect in node_effects(faults):
        await asyncio.sleep(max(0.0, zero_s + at_s - loop.time()))
        reader, writer = await asyncio.open_unix_connection(control_socket)
        try:
            writer.write(json.dumps({"node": node_id, **effect.model_dump()}).encode() + b"\n")
            answer = json.loads(await reader.readline())
        finally:
            writer.close()
        if "error" in answer:
            raise NodeUnavailable(f"the launcher refused {effect.effect} of {node_id}: {answer['error']}")
