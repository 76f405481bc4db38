"""The link emulator's HTTP interface and its life."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from services.links.fleet import Ends, LinkFleet
from services.links.schemas import ClockBody, InterruptBody, LinkBody, NewLinkBody, RestartBody, SettingsBody
from services.links.settings import LinksSettings
from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.errors import InvalidTask, NodeUnavailable, SkyshoreError
from skyshore.ports import StateStore
from skyshore.runtime.serve import stop_signal
from skyshore.wire.status import http_status

log = structlog.get_logger()

TELL_EVERY_S = 0.5
LEASE_S = 3.0


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
    async def restart(body: RestartBody = RestartBody()) -> ClockBody:  # noqa: B008 - no body is a body of defaults
        """Experiment time is 0 now, or a moment later: traces and planned outages begin with the workload."""
        fleet.restart(body.in_s)
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


async def tell(fleet: LinkFleet, store: StateStore) -> None:
    """Publish what the links turn out to do until cancelled. While the store is away the links work on."""
    told = True
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        try:
            await store.report_links(fleet.measured(), LEASE_S)
        except NodeUnavailable as error:
            if told:
                log.warning("measured links wait for the state store", why=error.message)
            told = False
        else:
            told = True


@asynccontextmanager
async def telling(fleet: LinkFleet, redis_url: str) -> AsyncIterator[None]:
    """`tell` inside the block, if there is a store to tell."""
    if not redis_url:
        yield
        return
    store = RedisStore(redis_url)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(tell(fleet, store), name="measured links")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await store.close()


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
        async with telling(fleet, settings.redis_url):
            serving = asyncio.create_task(server.serve(), name="http")
            await stop_signal()
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """Leaves the signals to `stop_signal`: uvicorn would raise them again at its end and cut the relays' farewell."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
