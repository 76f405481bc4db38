"""An OpenAI-compatible server that answers at once: the model server behind the peers in the gateway bench.

`python -m benchmarks.gateway_upstream PORT`. Its answer is as long as the one our own instant node gives.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import httptools
import uvloop

MODEL = "instant"
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": " ".join(["hi"] * 16)},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 30, "completion_tokens": 16, "total_tokens": 46},
    }
).encode()
# Gateways ask for these before they send anything.
_PAGES = {
    "/v1/models": {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "bench"}]},
    "/get_model_info": {"model_path": MODEL, "is_generation": True},
    "/get_server_info": {"model_path": MODEL},
}


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class BenchUpstream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's callback."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Asyncio's callback."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Httptools' callback."""
        self._url = b""

    def on_url(self, url: bytes) -> None:
        """Httptools' callback."""
        self._url += url

    def on_message_complete(self) -> None:
        """Httptools' callback."""
        assert self._transport
        if self._parser.get_method() == b"POST":
            self._transport.write(_response(_ANSWER))
        else:
            self._transport.write(_response(json.dumps(_PAGES.get(self._url.decode(), {"status": "ok"})).encode()))


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(BenchUpstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
