"""A door into a running launcher: whoever plays a scenario asks here for the loss and the return of a node."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from cli.launcher.errors import LaunchFailed

LONGEST_LINE = 4096


class Faults(Protocol):
    """What can be made to happen to one process, by name."""

    async def crash(self, name: str) -> None:
        """End it without warning. Raises LaunchFailed for one that is not there."""
        ...

    async def drift(self, name: str, slowdown: float) -> None:
        """Make it so many times slower than it says. Raises LaunchFailed for one that is not there, or not emulated."""
        ...

    async def boot(self, name: str) -> None:
        """Start it again. Raises LaunchFailed for one that is not there, or that runs."""
        ...


@asynccontextmanager
async def door(faults: Faults) -> AsyncIterator[str]:
    """Serve inside the block; yields the path of a socket that only this user can open.

    One JSON object a line, `{"do": "crash", "process": "edge-1"}`; the answer is `{}` or `{"error": "..."}`.
    """

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await _done(faults, line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # gone, or a line without an end
            pass
        finally:
            writer.close()

    # Not in the state folder: the path of a socket holds about a hundred letters.
    with tempfile.TemporaryDirectory(prefix="skyshore-") as folder:
        path = str(Path(folder) / "door")
        server = await asyncio.start_unix_server(talk, path, limit=LONGEST_LINE)
        try:
            yield path
        finally:
            server.close()


async def _done(faults: Faults, line: bytes) -> dict[str, str]:
    try:
        wish = json.loads(line)
        name = str(wish["process"])
        match wish["do"]:
            case "crash":
                await faults.crash(name)
            case "boot":
                await faults.boot(name)
            case "drift":
                await faults.drift(name, float(wish["slowdown"]))
            case other:
                return {"error": f"cannot '{other}'; known are crash, boot, drift"}
    except (ValueError, KeyError, TypeError) as error:
        return {"error": f'not a wish like {{"do": "crash", "process": "edge-1"}}: {error!r}'}
    except LaunchFailed as error:
        return {"error": error.message}
    return {}
