"""Opens what the gateway needs, serves, and closes in reverse order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import structlog
import uvicorn

from gateway.app import create_app
from gateway.deps import Deps
from gateway.settings import GatewaySettings
from skyshore.adapters.profiler_client import MuxProfilerClient
from skyshore.adapters.redis_store import RedisStore
from skyshore.adapters.scheduler_client import MuxSchedulerClient
from skyshore.adapters.worker_client import WorkerPool
from skyshore.domain.errors import Internal
from skyshore.mux.client import MuxChannel
from skyshore.runtime.http_limits import HttpLimits, limited
from skyshore.runtime.listen import check_listen
from skyshore.runtime.private_files import make_private
from skyshore.runtime.serve import stop_signal

log = structlog.get_logger()

BACKLOG = 1024


async def serve(settings: GatewaySettings) -> None:
    """Run until SIGTERM or SIGINT; then refuse new requests, let running ones finish, and close.

    Services that are away when this starts are found later; `/ready` says which are missing.

    Raises:
        OSError: the address is taken.
        Internal: the app could not start.
    """
    check_listen(settings.gateway_listen, allow_wider=settings.allow_wider_listen)
    make_private(settings.state_dir)
    async with AsyncExitStack() as stack:
        store = RedisStore(settings.redis_url)
        stack.push_async_callback(store.close)
        profiler = MuxChannel(settings.profiler_address, "the profiler")
        scheduler = MuxChannel(settings.scheduler_address, "the scheduler")
        stack.push_async_callback(profiler.close)
        stack.push_async_callback(scheduler.close)
        workers = WorkerPool()
        stack.push_async_callback(workers.close)
        deps = Deps(settings, store, MuxProfilerClient(profiler), MuxSchedulerClient(scheduler), workers)
        listening = stack.enter_context(_listen(settings.gateway_listen))
        host, port = listening.getsockname()[:2]
        log.info("serving", address=f"{host}:{port}", services=["http"])
        await _serve_until_stopped(_Server(_config(deps)), listening)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would raise them again and so end the process before it has closed the rest."""
        yield


async def _serve_until_stopped(server: uvicorn.Server, listening: socket.socket) -> None:
    serving = asyncio.create_task(server.serve([listening]))
    stopping = asyncio.create_task(stop_signal())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    log.info("draining")
    server.should_exit = True
    stopping.cancel()
    await asyncio.wait([serving, stopping])
    serving.result()
    if not server.started:
        raise Internal("the gateway could not start; the log above says why")


def _config(deps: Deps) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(deps),
        http=limited(HttpLimits(connections=deps.settings.gateway_connections)),
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,  # nothing here asks for the caller's address
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(deps.settings.gateway_drain_s)),
    )


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), int(port)))
        listening.listen(BACKLOG)
    except (OSError, ValueError) as error:
        listening.close()
        raise OSError(f"cannot listen on {address}: {error}") from error
    return listening
