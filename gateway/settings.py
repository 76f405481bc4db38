"""The settings of the gateway, from environment variables, read once in `__main__`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from skyshore.domain.task import SERVICE_CLASSES, ServiceClass


class GatewaySettings(BaseSettings):
    """Environment variables carry the prefix SKYSHORE_, for example SKYSHORE_GATEWAY_PORT."""

    model_config = SettingsConfigDict(env_prefix="SKYSHORE_", frozen=True)

    gateway_listen: str = "127.0.0.1:8080"
    """host:port to serve on; port 0 picks a free one."""
    allow_wider_listen: bool = False
    """Whether to listen where other machines can connect. Without it, only loopback is allowed."""
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
    gateway_jobs_in_flight: int = Field(default=3, gt=0)
    """Clips that this gateway processes at the same time. With two or more, one place is kept for short clips."""
    gateway_caller_jobs: int = Field(default=1000, gt=0)
    """Open clips of one caller; more are refused until one has ended."""
    gateway_max_clip_gigapixels: float = Field(default=500.0, gt=0)
    """Largest work of one clip: frames times pixels, in thousands of millions. Two hours of 1080p at 25 frames a second
    are 373. A picture below 320×320 counts as 320×320."""
    gateway_job_idle_s: float = Field(default=15.0, gt=0)
    """Seconds after which an unrenewed job is claimed by another gateway: its own has died."""
    gateway_job_tries: int = Field(default=3, gt=0)
    """Tries of a job that fail by themselves before it is moved to the dead letters."""
    gateway_job_starts: int = Field(default=5, gt=0)
    """Starts of a job without a finished segment in between before it is moved there: it may end its gateways."""
    gateway_webhook_hosts: tuple[str, ...] = ()
    """Hosts, addresses and networks that may get webhooks, as JSON: ["hooks.example.org", "10.1.2.0/24"]."""
    gateway_webhook_secret: SecretStr = SecretStr("")
    """Key of the signature of webhooks. Needed if there are hosts."""
    gateway_retry_share: float = Field(default=0.2, ge=0, le=1)
    """Retries on another node for each task, over time."""
    gateway_retry_burst: float = Field(default=200.0, ge=0)
    """Retries at once. A node that dies with all its tasks needs as many."""
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

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> GatewaySettings:
        if self.gateway_webhook_hosts and not self.gateway_webhook_secret.get_secret_value():
            raise ValueError("SKYSHORE_GATEWAY_WEBHOOK_HOSTS needs SKYSHORE_GATEWAY_WEBHOOK_SECRET, the signing key")
        return self

    @property
    def service_classes(self) -> dict[str, ServiceClass]:
        """The built-in classes with those of `gateway_classes` in their place."""
        return SERVICE_CLASSES | {each.name: each for each in self.gateway_classes}
