"""Settings of the span exporter, read once from the environment."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class SpansSettings(BaseSettings):
    """Environment variables carry the prefix SKYSHORE_, for example SKYSHORE_SPANS_ENDPOINT."""

    model_config = SettingsConfigDict(env_prefix="SKYSHORE_", frozen=True)

    spans_endpoint: str = "http://127.0.0.1:4318/v1/traces"
    """URL at which an OpenTelemetry collector takes OTLP over HTTP, as JSON."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """The state store, with the outcome stream."""
    log_level: str = "info"
    """debug, info, warning or error."""
    log_json: bool = True
    """One JSON object per line; false for coloured, readable text."""
