"""Settings of the scheduler process, read from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SchedulerSettings(BaseSettings):
    """Environment variables carry the prefix SKYSHORE_, for example SKYSHORE_SCHEDULER_POLICY."""

    model_config = SettingsConfigDict(env_prefix="SKYSHORE_", frozen=True)

    scheduler_listen: str = "127.0.0.1:7102"
    """host:port to serve on; port 0 picks a free one."""
    scheduler_policy: str = "least_loaded"
    """Policy in force at the start; `SetPolicy` changes it later."""
    scheduler_policy_settings: dict[str, dict[str, float | str | bool]] = Field(default_factory=dict)
    """Settings by policy name, as JSON: {"cs_ucb": {"delta": 0.2}}."""
    scheduler_seed: int = 0
    """Seed of all random choices of the policy."""
    scheduler_event_log: Path | None = None
    """Where to write the event log for replays; unset writes none."""
    scheduler_metrics_port: int = 0
    """Port of /metrics, on the interface listened on; 0 serves none."""
    scheduler_drain_s: float = 5.0
    """Seconds that running calls have to finish after SIGTERM."""
    allow_wider_listen: bool = False
    """Whether to listen where other machines can connect. Without it, only loopback is allowed."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """URL of the state store."""
    log_level: str = "info"
    """debug, info, warning or error."""
    log_json: bool = True
    """False writes coloured lines for people."""
