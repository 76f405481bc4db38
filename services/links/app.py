"""The link emulator's HTTP interface and its life."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from services.links.fleet import Ends, LinkFleet
from services.links.schemas import ClockBody, InterruptBody, LinkBody, NewLinkBody, SettingsBody
from services.links.settings import LinksSettings
from skyshore.domain.errors import InvalidTask, SkyshoreError
from skyshore.runtime.serve import stop_signal
from skyshore.runtime.status import http_status

log = structlog.get_logger()


def create_app(fleet: LinkFleet) -> FastAPI:
    """Routes over a fleet that runs already."""
    app = FastAPI(title="Skyshore links", openapi_url="/openapi.json")

    @app.exception_handler(SkyshoreError)
    async def refuse(_: Request, error: SkyshoreError) -> JSONResponse:
        body = {"error": {"code": error.code, "message": error.message, "param": error.param}}
        return JSONResponse(body, http_status(error))

    @app.get("/health")
    async def health() -> ClockBody:
        """Answers when the relays run."""
        return ClockBody(now_s=fleet.now_s)

    @app.get("/links")
    async def links() -> list[LinkBody]:
        """Every link."""
        return [LinkBody.of(*entry) for entry in fleet.all()]

    @app.get("/links/{name}")
    async def link(name: str) -> LinkBody:
        """One link."""
        return LinkBody.of(*fleet.link(name))

    @app.post("/links", status_code=201)
    async def add(body: NewLinkBody) -> LinkBody:
        """Begin to relay."""
        await begin(fleet, body)
        return LinkBody.of(*fleet.link(body.name))

    @app.put("/links/{name}")
    async def change(name: str, body: SettingsBody) -> LinkBody:
        """New settings at once."""
        fleet.change(name, body.to_domain())
        return LinkBody.of(*fleet.link(name))

    @app.post("/links/{name}/outage")
    async def interrupt(name: str, body: InterruptBody) -> LinkBody:
        """Nothing gets through for so many seconds from now on."""
        fleet.interrupt(name, body.seconds)
        return LinkBody.of(*fleet.link(name))

    @app.post("/restart")
    async def restart() -> ClockBody:
        """Experiment time is 0 now: traces and planned outages begin with the workload."""
        fleet.restart()
        return ClockBody(now_s=fleet.now_s)

    return app


async def begin(fleet: LinkFleet, body: NewLinkBody) -> None:
    """Add one link. Raises InvalidTask for an address that cannot be used."""
    for word, address in (("listen", body.listen), ("target", body.target)):
        if not address.rpartition(":")[2].isdigit():
            raise InvalidTask(f"{word} must be host:port, not '{address}'", param=word)
    try:
        ends = await fleet.add(body.name, Ends(body.listen, body.target), body.to_domain())
    except OSError as error:
        raise InvalidTask(f"cannot listen on {body.listen}: {error}", param="listen") from error
    log.info("link", name=body.name, listen=ends.listen, target=ends.target)


def read_links(path: Path) -> list[NewLinkBody]:
    """The links of a file. Raises OSError or ValueError."""
    return TypeAdapter(list[NewLinkBody]).validate_python(json.loads(path.read_text("utf-8")))


async def serve(settings: LinksSettings) -> None:
    """Relay until SIGTERM or SIGINT.

    Raises:
        SkyshoreError: the file names a link that makes no sense.
        OSError: the file or the address cannot be used.
        ValueError: the file is no list of links.
    """
    listed = read_links(Path(settings.file)) if settings.file else []
    async with LinkFleet(Path(settings.traces), settings.seed) as fleet:
        for body in listed:
            await begin(fleet, body)
        host, _, port = settings.listen.rpartition(":")
        config = uvicorn.Config(create_app(fleet), host=host, port=int(port), log_level="warning", lifespan="off")
        server = _Server(config)
        serving = asyncio.create_task(server.serve(), name="http")
        await stop_signal()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Leaves the signals to `stop_signal`: uvicorn would raise them again at its end and cut the relays' farewell."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
