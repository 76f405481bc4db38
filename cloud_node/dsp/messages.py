"""Messages between front and ranks: a JSON head and at most one array, length-prefixed, over one TCP stream."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.errors import InvalidTask

_LENGTH = struct.Struct(">I")
MAX_HEAD_BYTES = 1 << 16
MAX_ARRAY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Message:
    """One message. The head is plain JSON."""

    head: Mapping[str, Any]
    array: NDArray[Any] | None = None


def encode_message(message: Message) -> tuple[bytes, memoryview]:
    """Prefix and head, then the array's bytes (empty without one).

    Raises:
        InvalidTask: head or array is over the limit.
    """
    head, body = dict(message.head), memoryview(b"")
    if message.array is not None:
        array = np.ascontiguousarray(message.array)
        head["array"] = {"dtype": array.dtype.str, "shape": list(array.shape)}
        body = array.reshape(-1).view(np.uint8).data if array.size else body
    text = json.dumps(head).encode()
    if len(text) > MAX_HEAD_BYTES or body.nbytes > MAX_ARRAY_BYTES:
        raise InvalidTask(f"a message of {len(text)} + {body.nbytes} bytes is over the limit; send smaller batches")
    return _LENGTH.pack(len(text)) + text, body


async def read_message(reader: asyncio.StreamReader) -> Message:
    """Next message.

    Raises:
        asyncio.IncompleteReadError: the other side closed.
        InvalidTask: it announced more than the limit.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    head = _head(await reader.readexactly(_checked(length, MAX_HEAD_BYTES)))
    size = _array_bytes(head)
    return _message(head, await reader.readexactly(size) if size else b"")


async def write_message(writer: asyncio.StreamWriter, message: Message) -> None:
    """Send, and wait while the other side is slow to read."""
    for part in encode_message(message):
        writer.write(part)
    await writer.drain()


def receive_message(connection: socket.socket) -> Message | None:
    """Blocking `read_message`; None when the other side closed."""
    prefix = _receive(connection, _LENGTH.size)
    if prefix is None:
        return None
    (length,) = _LENGTH.unpack(prefix)
    head = _head(_receive(connection, _checked(length, MAX_HEAD_BYTES)) or b"{}")
    body = _receive(connection, _array_bytes(head))
    return None if body is None else _message(head, body)


def send_message(connection: socket.socket, message: Message) -> None:
    """Blocking `write_message`."""
    for part in encode_message(message):
        connection.sendall(part)


def _checked(size: int, limit: int) -> int:
    if size > limit:
        raise InvalidTask(f"a message of {size} bytes is over the limit of {limit}")
    return size


def _head(text: bytes | bytearray) -> dict[str, Any]:
    head: dict[str, Any] = json.loads(text)
    return head


def _array_bytes(head: Mapping[str, Any]) -> int:
    about = head.get("array")
    return _checked(np.dtype(about["dtype"]).itemsize * prod(about["shape"]), MAX_ARRAY_BYTES) if about else 0


def _message(head: dict[str, Any], body: bytes | bytearray) -> Message:
    about = head.pop("array", None)
    if about is None:
        return Message(head)
    return Message(head, np.frombuffer(bytearray(body), np.dtype(about["dtype"])).reshape(about["shape"]))


def _receive(connection: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        count = connection.recv_into(view[done:])
        if count == 0:
            return None
        done += count
    return data
