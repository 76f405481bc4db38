"""Ports to listen on: the usual one, or the next best when it is taken."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from cli.launcher.errors import LaunchFailed

HOST = "127.0.0.1"


@dataclass(slots=True)
class Ports:
    """Hands out each port once and keeps what had to move, to be told to the user."""

    any_free: bool = False
    """Take no usual port at all, so that nothing else on this machine is met."""
    moved: list[str] = field(default_factory=list)
    _given: set[int] = field(default_factory=set)

    def choose(self, name: str, usual: int) -> int:
        """`usual` if it is free, else any free port."""
        if self.any_free:
            port = _any_free(self._given)
        elif usual not in self._given and _is_free(usual):
            port = usual
        else:
            port = _any_free(self._given)
            self.moved.append(f"{name}: port {usual} is taken, using {port}")
        self._given.add(port)
        return port

    def insist(self, name: str, port: int) -> int:
        """`port`, or fail.

        Raises:
            LaunchFailed: another process listens there.
        """
        if port in self._given or not _is_free(port):
            raise LaunchFailed(f"port {port} for {name} is taken; choose another or leave it out to get a free one")
        self._given.add(port)
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _any_free(given: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in given:
            return port
