"""Rank programs for the fault tests: they fail in a chosen way, once or always."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from cloud_node.dsp.switch import gather, split, switch
from cloud_node.dsp.transports.port import Transport
from skyshore.domain.errors import InvalidTask


class EchoProgram:
    """Switches what it got back and forth, and fails when the request says so."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, request: Mapping[str, Any], part: NDArray[Any], transport: Transport) -> NDArray[Any] | None:
        fault = request.get("fault", "")
        if fault == "refuse":
            raise InvalidTask("not this one")
        if fault and transport.rank == transport.size - 1 and self._first_time(request):
            if fault == "sleep":
                time.sleep(float(request["seconds"]))
            else:
                os.kill(os.getpid(), signal.SIGKILL if fault == "die" else signal.SIGSTOP)
        whole = torch.from_numpy(part)
        for _ in range(int(request.get("rounds", 1))):
            whole = gather(switch(split(whole, 0, transport), 1, transport), transport)
        return whole.numpy()

    def _first_time(self, request: Mapping[str, Any]) -> bool:
        """A fault marked `once` leaves a file behind, so that the retry goes well."""
        mark = self._folder / str(request.get("once", ""))
        if "once" not in request:
            return True
        if mark.exists():
            return False
        mark.touch()
        return True


def build(argument: str) -> EchoProgram:
    return EchoProgram(Path(argument))
