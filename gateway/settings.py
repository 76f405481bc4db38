"""The settings of the gateway, from environment variables, read once in `__main__`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from skyshore.domain.task import SERVICE_CLASSES, ServiceClass


class GatewaySettings(BaseSettings):
    """Environment variables carry the prefix SKYSHORE_, for example SKYSHORE_GATEWAY_PORT."""

    model_config = SettingsConfigDict(env_prefix="SKYSHORE_", frozen=True)

    gateway_listen: str = "127.0.0.1:8080"
    """host:port to serve on; port 0 picks a free one."""
    gateway_origin: str = ""
    """Name of the site where this gateway runs."""
    gateway_classes: tuple[ServiceClass, ...] = ()
    """More service classes, as JSON: [{"name": "fast", "deadline_s": 2}]. A built-in name replaces that class."""
    gateway_media_root: Path | None = None
    """Folder of the files that a caller may name by URL. Unset: none."""
    gateway_web_origins: tuple[str, ...] = ()
    """Origins, as JSON, of web pages that may ask for changes besides the gateway's own: ["https://chat.example"]."""
    gateway_connections: int = Field(default=8192, gt=0)
    """Most connections at the same time."""
    gateway_max_body_bytes: int = Field(default=2 * 1024 * 1024, gt=0)
    """Largest JSON body, in bytes."""
    gateway_max_upload_bytes: int = Field(default=1024 * 1024 * 1024, gt=0)
    """Largest clip, in bytes."""
    gateway_uploads_in_flight: int = Field(default=32, gt=0)
    """Uploads that are received at the same time; more are refused with 429."""
    gateway_disk_reserve_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Free bytes that uploads leave on the disk of the state folder: for the state store, the logs and results."""
    gateway_disk_bytes: int = Field(default=64 * 1024**3, gt=0)
    """Bytes that all uploads and results may take."""
    gateway_caller_disk_bytes: int = Field(default=16 * 1024**3, gt=0)
    """Bytes that the uploads and results of one caller (today: one client address) may take."""
    gateway_segment_s: float = Field(default=2.0, gt=0)
    """Seconds of video in one segment."""
    gateway_segments_in_flight: int = Field(default=4, gt=0)
    """Segments of one clip that run at the same time."""
    gateway_jobs_in_flight: int = Field(default=2, gt=0)
    """Clips that this gateway processes at the same time."""
    gateway_job_idle_s: float = Field(default=15.0, gt=0)
    """Seconds after which an unrenewed job is claimed by another gateway: its own has died."""
    gateway_job_tries: int = Field(default=3, gt=0)
    """Times a job is tried before it is moved to the dead letters."""
    gateway_drain_s: float = Field(default=10.0, ge=0)
    """Seconds that running requests may take after SIGTERM."""
    profiler_address: str = "127.0.0.1:7101"
    """host:port of the profiler."""
    scheduler_address: str = "127.0.0.1:7102"
    """host:port of the scheduler."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """Address of the state store."""
    state_dir: Path = Path(".state")
    """Folder of uploads and results. All gateways of one store must share it."""
    log_level: str = "info"
    """debug, info, warning or error."""
    log_json: bool = True
    """True: one JSON object per line. False: coloured text."""

    @property
    def service_classes(self) -> dict[str, ServiceClass]:
        """The built-in classes with those of `gateway_classes` in their place."""
        return SERVICE_CLASSES | {each.name: each for each in self.gateway_classes}
