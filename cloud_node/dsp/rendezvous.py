"""The store through which the ranks of one host meet."""

from __future__ import annotations

import socket

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but torch's stubs forget it

HOST = "127.0.0.1"


def loopback_store() -> TCPStore:
    """A store on a free port of loopback.

    torch listens on every interface, whatever host it is given, and its store has no authentication. So it gets a
    socket that is bound already.
    """
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen()
        port = listening.getsockname()[1]
        # The store owns the descriptor from here on and closes it.
        return TCPStore(
            HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach(), use_libuv=True
        )
