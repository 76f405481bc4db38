"""One rank of a group: `python -m cloud_node.dsp.rank`, started by torchrun, fed by the front over one TCP stream."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from typing import Any, NoReturn, Protocol

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but torch's stubs forget it

from cloud_node.dsp.messages import Message, receive_message, send_message
from cloud_node.dsp.transports.p2p import P2PTransport
from cloud_node.dsp.transports.port import Transport
from skyshore.domain.errors import DeadlineExceeded, Internal, NodeUnavailable, SkyshoreError

TOKEN_VARIABLE = "SKYSHORE_RANK_TOKEN"
"""Environment variable with the secret that a rank must send."""

STORE_VARIABLE = "SKYSHORE_RANK_STORE"
"""Environment variable with host:port of the store where the ranks meet; without it, they meet as torchrun says."""

TAGS_PER_JOB = 1 << 12
_TAG_SPACE = 1 << 30


class RankProgram(Protocol):
    """What the ranks of a job do together; made once per process by a factory that takes one string."""

    def run(self, request: Mapping[str, Any], part: NDArray[Any], transport: Transport) -> NDArray[Any] | None:
        """Work on this rank's part; the group's first rank returns the answer.

        Raises:
            SkyshoreError: the work is refused, by every rank of the job; else the others wait until their limit.
        """
        ...


def main(command_line: Sequence[str] | None = None) -> None:
    """Join the group and work until the front disconnects; None reads the process's own command line."""
    arguments = _arguments(command_line)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host, _, port = arguments.front.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=arguments.start_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _introduce(connection, rank, world_size)
    torch.set_num_threads(arguments.threads)
    _meet(rank, world_size, timedelta(seconds=arguments.start_s))
    module, _, factory = arguments.program.partition(":")
    program: RankProgram = getattr(import_module(module), factory)(arguments.argument)
    send_message(connection, Message({"ready": True}))
    connection.settimeout(None)
    while (message := receive_message(connection)) is not None:
        _work(connection, program, message)
    _leave(0)


def _meet(rank: int, world_size: int, limit: timedelta) -> None:
    """Form the group of all ranks."""
    host, _, port = os.environ.get(STORE_VARIABLE, "").rpartition(":")
    if not host:
        dist.init_process_group("gloo", timeout=limit)
        return
    store = TCPStore(host, int(port), is_master=False, timeout=limit)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=limit)


def _arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--front", required=True, help="host:port of the cloud node's front")
    parser.add_argument("--program", required=True, help="module:factory of the RankProgram")
    parser.add_argument("--argument", default="", help="string for the factory")
    parser.add_argument("--threads", type=int, default=1, help="threads this rank computes with")
    parser.add_argument("--start-s", type=float, default=60.0, help="seconds to find the others")
    return parser.parse_args(command_line)


def _introduce(connection: socket.socket, rank: int, world_size: int) -> None:
    hello = {
        "token": os.environ.get(TOKEN_VARIABLE, ""),
        "rank": rank,
        "world_size": world_size,
        "run": f"{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}",
        "pid": os.getpid(),
    }
    send_message(connection, Message(hello))
    answer = receive_message(connection)
    if answer is None or "refused" in answer.head:
        reason = "it hung up" if answer is None else answer.head["refused"]
        print(f"rank {rank}: the front refused this rank: {reason}", file=sys.stderr, flush=True)
        _leave(2)


def _work(connection: socket.socket, program: RankProgram, message: Message) -> None:
    head, began_s = message.head, time.perf_counter()
    if message.array is None:
        raise Internal("a job came without this rank's part")
    tag = head["job"] * TAGS_PER_JOB % _TAG_SPACE
    transport = P2PTransport(head["ranks"], timeout_s=head["timeout_s"], first_tag=tag)
    try:
        answer = program.run(head["request"], message.array, transport)
    except (NodeUnavailable, DeadlineExceeded) as error:
        # The process group has lost a member or a message; only a new one is safe to use.
        send_message(connection, Message(_failure(head, error)))
        _leave(1)
    except SkyshoreError as error:
        send_message(connection, Message(_failure(head, error)))
        return
    done = {"job": head["job"], "seconds": time.perf_counter() - began_s}
    send_message(connection, Message(done, answer if transport.rank == 0 else None))


def _failure(head: Mapping[str, Any], error: SkyshoreError) -> dict[str, Any]:
    return {"job": head["job"], "error": type(error).__name__, "message": error.message}


def _leave(code: int) -> NoReturn:
    """End now: tearing gloo down would wait for peers that may be dead."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
