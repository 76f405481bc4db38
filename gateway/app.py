"""Builds the gateway from its parts."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.routing import Route

from gateway import errors, openapi
from gateway.asgi import Receive, Scope, Send, is_foreign_page
from gateway.attempts import AttemptLoop
from gateway.breaker import NodeBreakers
from gateway.deps import Deps
from gateway.fleet import FleetView
from gateway.llm.openai_reply import ChatReply, CompletionReply
from gateway.llm.openai_schema import ChatRequest, CompletionRequest
from gateway.records import RecordWriter
from gateway.retry_budget import RetryBudget
from gateway.routes.fleet import fleet_routes
from gateway.routes.health import health_routes
from gateway.routes.llm import LlmEndpoint
from gateway.routes.tasks import shown, task_routes
from gateway.routes.video import video_routes
from gateway.settings import GatewaySettings
from gateway.video.cancel import JobCancellation
from gateway.video.classify_job import ClassificationJobs
from gateway.video.clips import AcceptLimits, ClipStore
from gateway.video.detect_job import DetectionJobs
from gateway.video.disk_room import DiskLimits
from gateway.video.job_run import JobLimits
from gateway.video.job_runner import JobRunner
from gateway.video.webhook_rules import AllowedHosts
from gateway.video.webhooks import Webhooks
from skyshore.domain.errors import DiskFull, DiskUnavailable, PermissionDenied
from skyshore.domain.task import TaskKind
from skyshore.runtime import telemetry

log = structlog.get_logger()

FOREIGN_PAGE = "this web page is not from this server; name its origin in SKYSHORE_GATEWAY_WEB_ORIGINS to allow it"


class Gateway:
    """FastAPI. POSTs to the paths in `hot` bypass its middleware, which would cost more than the routes themselves."""

    def __init__(self, app: FastAPI, hot: Mapping[str, LlmEndpoint], pages: Collection[str] = ()) -> None:
        """`pages`: origins of web pages that may ask for changes, besides the gateway's own."""
        self._app, self._hot, self._pages = app, hot, frozenset(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and is_foreign_page(scope, self._pages):
            await errors.refuse(PermissionDenied(FOREIGN_PAGE, param="origin"))(scope, receive, send)
            return
        endpoint = self._hot.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (endpoint or self._app)(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The content of `/openapi.json`."""
        return self._app.openapi()


def create_app(deps: Deps) -> Gateway:
    """The ASGI app on open connections. Its lifespan runs the background tasks."""
    settings = deps.settings
    records = RecordWriter(deps.store, deps.scheduler.report_outcome)
    fleet = FleetView(deps.store, deps.workers)
    breakers = NodeBreakers()
    attempts = AttemptLoop(
        deps.scheduler,
        deps.workers.client,
        records,
        fleet.joules_per_byte,
        breakers=breakers,
        budget=RetryBudget(settings.gateway_retry_share, settings.gateway_retry_burst),
    )
    telemetry.BREAKERS_OPEN.set_function(lambda: len(breakers.shut(time.monotonic())))
    webhooks = _webhooks(deps)
    clips, jobs = _clip_jobs(deps, attempts, fleet, webhooks)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        _make_folders(clips)
        loops = (records.run, jobs.run, clips.sweep, clips.restore, fleet.watch, webhooks.run)
        tasks = [asyncio.create_task(work()) for work in loops]
        for task in tasks:
            task.add_done_callback(_stop_if_failed)
        yield
        clips.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await records.close()

    app = FastAPI(title="Skyshore", description="Inference between shore (edge) and sky (cloud).", lifespan=lifespan)
    endpoint = partial(
        LlmEndpoint,
        profiler=deps.profiler,
        attempts=attempts,
        origin=settings.gateway_origin,
        max_body_bytes=settings.gateway_max_body_bytes,
        classes=settings.service_classes,
    )
    hot = {
        "/v1/chat/completions": endpoint(ChatRequest, ChatReply),
        "/v1/completions": endpoint(CompletionRequest, CompletionReply),
    }
    app.router.routes += [Route(path, endpoint_of, methods=["POST"]) for path, endpoint_of in hot.items()]
    app.include_router(video_routes(deps.store, clips, settings))
    cancellation = JobCancellation(deps.store, clips.files, jobs.stop_job, webhooks.ended)
    app.include_router(task_routes(deps.store, clips, cancellation))
    app.include_router(fleet_routes(fleet, deps.scheduler, deps.store, breakers))
    app.include_router(health_routes(fleet, deps.scheduler, deps.profiler, deps.store))
    errors.install(app)
    openapi.install(app)
    return Gateway(app, hot, settings.gateway_web_origins)


def _webhooks(deps: Deps) -> Webhooks:
    settings = deps.settings
    return Webhooks(
        deps.store,
        settings.state_dir.resolve() / "webhooks",
        AllowedHosts(settings.gateway_webhook_hosts),
        settings.gateway_webhook_secret.get_secret_value(),
        shown,
    )


def _clip_limits(settings: GatewaySettings) -> AcceptLimits:
    return AcceptLimits(
        DiskLimits(
            settings.gateway_disk_reserve_bytes, settings.gateway_disk_bytes, settings.gateway_caller_disk_bytes
        ),
        uploads_in_flight=settings.gateway_uploads_in_flight,
        jobs_of_caller=settings.gateway_caller_jobs,
        most_pixels=settings.gateway_max_clip_gigapixels * 1e9,
    )


def _make_folders(clips: ClipStore) -> None:
    try:
        clips.make_folders()
    except (DiskFull, DiskUnavailable) as error:  # chats need no disk; each upload tries again
        log.error("uploads are refused: the state folder cannot be used", why=error.message)


def _clip_jobs(deps: Deps, attempts: AttemptLoop, fleet: FleetView, webhooks: Webhooks) -> tuple[ClipStore, JobRunner]:
    settings = deps.settings
    folder = settings.state_dir.resolve()
    clips = ClipStore(deps.store, folder, _clip_limits(settings), fleet.check_offered, webhooks)
    detection = DetectionJobs(
        deps.profiler,
        attempts,
        clips.files,
        segment_s=settings.gateway_segment_s,
        in_flight=settings.gateway_segments_in_flight,
        origin=settings.gateway_origin,
    )
    classification = ClassificationJobs(deps.profiler, attempts, clips.files, origin=settings.gateway_origin)
    jobs = JobRunner(
        deps.store,
        {TaskKind.VIDEO_DETECT: detection.run, TaskKind.VIDEO_CLASSIFY: classification.run},
        clips.files,
        JobLimits(settings.gateway_job_idle_s, settings.gateway_job_tries, settings.gateway_job_starts),
        webhooks.ended,
        in_flight=settings.gateway_jobs_in_flight,
    )
    return clips, jobs


def _stop_if_failed(task: asyncio.Task[None]) -> None:
    """Stop the process: without its background tasks the gateway would accept jobs and never run them."""
    if not task.cancelled() and (error := task.exception()):
        log.critical("a background task failed; stopping", exc_info=error)
        signal.raise_signal(signal.SIGTERM)
