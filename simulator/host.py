"""One machine that several nodes share: the engines of each take longer while those of others work."""

from __future__ import annotations

from simulator.servers import LlmServer


class Host:
    """Tells every engine on it how many others are busy."""

    def __init__(self, contention: float) -> None:
        """`contention`: see `Calibration`."""
        self._contention = contention
        self._servers: list[LlmServer] = []

    def add(self, server: LlmServer) -> None:
        """An engine has started."""
        self._servers.append(server)
        server.on_busy = self._share
        self._share()

    def remove(self, server: LlmServer) -> None:
        """It is gone."""
        server.on_busy = None
        self._servers.remove(server)
        self._share()

    def _share(self) -> None:
        busy = sum(server.busy for server in self._servers)
        for server in self._servers:
            server.hinder(1.0 + self._contention * (busy - server.busy))
