"""The HTTP interface of the link emulator, and its start and stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from services.links.fleet import LinkFleet, RelayAddresses
from services.links.schemas import ClockBody, InterruptBody, LinkBody, NewLinkBody, RestartBody, SettingsBody
from services.links.settings import LinksSettings
from skyshore.adapters.redis_store import RedisStore
from skyshore.domain.errors import InvalidTask, PermissionDenied, SkyshoreError
from skyshore.ports import StateStore
from skyshore.runtime.endure import for_ever
from skyshore.runtime.http_limits import LimitedHttp
from skyshore.runtime.listen import check_listen
from skyshore.runtime.serve import stop_signal
from skyshore.wire.status import http_status

log = structlog.get_logger()

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
PUBLISH_EVERY_S = 0.5
LEASE_S = 3.0


@dataclass(frozen=True, slots=True)
class RelayRules:
    """Which relays a caller may add. A relay connects every client that reaches it to its target."""

    hosts: frozenset[str] = LOOPBACK
    """On which relays may listen."""
    targets: frozenset[str] = frozenset()
    """host:port, compared as they are written."""

    def check(self, body: NewLinkBody) -> None:
        """Raises PermissionDenied for another address."""
        if body.listen.rpartition(":")[0] not in self.hosts:
            hosts = ", ".join(sorted(self.hosts))
            raise PermissionDenied(f"a link may listen only on {hosts}, not on '{body.listen}'", param="listen")
        if body.target not in self.targets:
            raise PermissionDenied(
                f"'{body.target}' is no target of this service; name it in SKYSHORE_LINKS_TARGETS", param="target"
            )


def create_app(fleet: LinkFleet, rules: RelayRules) -> FastAPI:
    """The routes over a running fleet of links."""
    app = FastAPI(title="Skyshore links", openapi_url="/openapi.json")

    @app.exception_handler(SkyshoreError)
    async def refuse(_: Request, error: SkyshoreError) -> JSONResponse:
        body = {"error": {"code": error.code, "message": error.message, "param": error.param}}
        return JSONResponse(body, http_status(error))

    @app.get("/health")
    async def health() -> ClockBody:
        """Answers once the relays run."""
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
        """Start to relay, from an address and to a target that the settings allow."""
        rules.check(body)
        await start_link(fleet, body)
        return LinkBody.of(*fleet.link(body.name))

    @app.put("/links/{name}")
    async def change(name: str, body: SettingsBody) -> LinkBody:
        """Apply new settings at once."""
        fleet.change(name, body.to_domain())
        return LinkBody.of(*fleet.link(name))

    @app.post("/links/{name}/outage")
    async def interrupt(name: str, body: InterruptBody) -> LinkBody:
        """Start an outage now: no bytes pass for `seconds`."""
        fleet.interrupt(name, body.seconds)
        return LinkBody.of(*fleet.link(name))

    @app.post("/restart")
    async def restart(body: RestartBody = RestartBody()) -> ClockBody:  # noqa: B008 - no body is a body of defaults
        """Set experiment time to 0, now or in `in_s` seconds: traces and planned outages start with the workload."""
        fleet.restart(body.in_s)
        return ClockBody(now_s=fleet.now_s)

    return app


async def start_link(fleet: LinkFleet, body: NewLinkBody) -> None:
    """Add one link and start to relay. Raises InvalidTask for an address that cannot be used."""
    for word, address in (("listen", body.listen), ("target", body.target)):
        if not address.rpartition(":")[2].isdigit():
            raise InvalidTask(f"{word} must be host:port, not '{address}'", param=word)
    try:
        addresses = await fleet.add(body.name, RelayAddresses(body.listen, body.target), body.to_domain())
    except OSError as error:
        raise InvalidTask(f"cannot listen on {body.listen}: {error}", param="listen") from error
    log.info("link", name=body.name, listen=addresses.listen, target=addresses.target)


def read_links(path: Path) -> list[NewLinkBody]:
    """The links of a file. Raises OSError or ValueError."""
    return TypeAdapter(list[NewLinkBody]).validate_python(json.loads(path.read_text("utf-8")))


async def publish_measurements(fleet: LinkFleet, store: StateStore) -> None:
    """Write the measured links to the store until cancelled. The links keep working while the store is away."""
    await for_ever("measured links", lambda: store.report_links(fleet.measured(), LEASE_S), PUBLISH_EVERY_S)


@asynccontextmanager
async def publishing(fleet: LinkFleet, redis_url: str) -> AsyncIterator[None]:
    """`publish_measurements` inside the block; nothing without a store."""
    if not redis_url:
        yield
        return
    store = RedisStore(redis_url)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(publish_measurements(fleet, store), name="measured links")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await store.close()


async def serve(settings: LinksSettings) -> None:
    """Relay until SIGTERM or SIGINT.

    Raises:
        SkyshoreError: a link in the file is invalid.
        OSError: the file or the address cannot be used.
        ValueError: the file is not a list of links.
    """
    check_listen(settings.listen, allow_wider=settings.allow_wider_listen)
    links = read_links(Path(settings.file)) if settings.file else []
    async with LinkFleet(Path(settings.traces), settings.seed) as fleet:
        for body in links:
            check_listen(body.listen, allow_wider=settings.allow_wider_listen)
            await start_link(fleet, body)
        host, _, port = settings.listen.rpartition(":")
        named = {target.strip() for target in settings.targets.split(",") if target.strip()}
        rules = RelayRules(LOOPBACK | {host}, frozenset(named | {body.target for body in links}))
        config = uvicorn.Config(
            create_app(fleet, rules),
            host=host,
            port=int(port),
            log_level="warning",
            lifespan="off",
            http=LimitedHttp,
        )
        server = _Server(config)
        async with publishing(fleet, settings.redis_url):
            serving = asyncio.create_task(server.serve(), name="http")
            await stop_signal()
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """Leaves signals to `stop_signal`: uvicorn would raise them again at its end, before the relays are closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
