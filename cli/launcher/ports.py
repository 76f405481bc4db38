"""Ports to listen on: the usual port, or any free port if that is taken."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from cli.launcher.errors import LaunchFailed

HOST = "127.0.0.1"


@dataclass(slots=True)
class Ports:
    """Gives out each port once and remembers the ports that were taken, for a message to the user."""

    any_free: bool = False
    """Use no usual port, so that no other program on this machine is disturbed."""
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

    def require(self, name: str, port: int) -> int:
        """`port`, or an error.

        Raises:
            LaunchFailed: another process listens there.
        """
        if port in self._given or not _is_free(port):
            raise LaunchFailed(f"port {port} for {name} is in use; choose another port, or give none to get a free one")
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
