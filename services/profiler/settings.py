"""The settings of the profiler, from environment variables, read once."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class ProfilerSettings(BaseSettings):
    """Environment variables carry the prefix SKYSHORE_, for example SKYSHORE_PROFILER_LISTEN."""

    model_config = SettingsConfigDict(env_prefix="SKYSHORE_", frozen=True)

    profiler_listen: str = "127.0.0.1:7101"
    """host:port to serve on; port 0 picks a free one."""
    profiler_model: str = "smollm2-135m"
    """Model of the catalogue whose tokenizer counts prompts."""
    profiler_metrics_port: int = 0
    """Port of /metrics on the host of `profiler_listen`; 0 serves none."""
    profiler_drain_s: float = 5.0
    """Seconds that running calls may take after SIGTERM."""
    allow_wider_listen: bool = False
    """Whether to listen where other machines can connect. Without it, only loopback is allowed."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """Address of the state store, to read outcomes."""
    log_level: str = "info"
    """debug, info, warning or error."""
    log_json: bool = True
    """True: one JSON object per line. False: coloured text."""
