"""The control socket of a running launcher: it takes the effects of the faults of a scenario."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from cli.launcher.errors import LaunchFailed
from skyshore.scenario.effects import NODE_EFFECT, NodeEffect

MAX_LINE_BYTES = 4096
EXAMPLE = '{"node": "edge-1", "effect": "stop_node"}'


class EffectExecutor(Protocol):
    """Makes an effect happen to the process of a node."""

    async def apply(self, name: str, effect: NodeEffect) -> None:
        """Returns when it has happened. Raises LaunchFailed if the process does not exist or cannot do it."""
        ...

    async def restart(self, name: str) -> None:
        """Stop a process and start it; returns when it serves. Raises LaunchFailed."""
        ...


@asynccontextmanager
async def control_socket(executor: EffectExecutor) -> AsyncIterator[str]:
    """Serve inside the block; yields the path of a socket that only this user can open.

    A command is one line of JSON: `{"node": "edge-1", "effect": "slow_node", "slowdown": 2}`, or
    `{"restart": "gateway"}`. The answer is `{}` or `{"error": "..."}`.
    """

    async def answer_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await _answer(executor, line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # the client is gone, or its line is too long
            pass
        finally:
            writer.close()

    # Not in the state folder: the path of a socket has a limit of about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="skyshore-") as folder:
        path = str(Path(folder) / "control")
        server = await asyncio.start_unix_server(answer_lines, path, limit=MAX_LINE_BYTES)
        try:
            yield path
        finally:
            server.close()


async def _answer(executor: EffectExecutor, line: bytes) -> dict[str, str]:
    try:
        fields = json.loads(line)
        if list(fields) == ["restart"]:
            return await _done(executor.restart(str(fields["restart"])))
        name = str(fields.pop("node"))
        effect = NODE_EFFECT.validate_python(fields)
    except ValidationError as error:
        reason = "; ".join(detail["msg"] for detail in error.errors(include_url=False))
        return {"error": f"not a command like {EXAMPLE}: {reason}"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"not a command like {EXAMPLE}: {error!r}"}
    return await _done(executor.apply(name, effect))


async def _done(doing: Awaitable[None]) -> dict[str, str]:
    try:
        await doing
    except LaunchFailed as error:
        return {"error": error.message}
    return {}
