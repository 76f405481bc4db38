"""The store at which the ranks of one host meet: torch's, listening on loopback only."""

from __future__ import annotations

import socket

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but torch's stubs forget it


def open_store() -> TCPStore:
    """Start a store on a free port of 127.0.0.1.

    Given only a host, torch listens on all interfaces, and its store asks nobody who they are.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    # The store closes the descriptor. Only torch's own backend takes one: the other one is libuv's.
    return TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach(), use_libuv=False
    )
