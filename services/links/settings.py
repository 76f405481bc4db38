"""Settings of the link emulator, read once from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LinksSettings(BaseSettings):
    """The variable of a field is SKYSHORE_LINKS_ and its name, unless the field has an alias."""

    model_config = SettingsConfigDict(env_prefix="SKYSHORE_LINKS_", frozen=True, extra="ignore", populate_by_name=True)

    listen: str = "127.0.0.1:7190"
    """host:port of the HTTP interface that shows and changes links."""
    file: str = ""
    """JSON file with the links to start with: a list of bodies of POST /links."""
    targets: str = ""
    """host:port addresses, separated by commas, to which POST /links may relay, besides the targets in `file`."""
    traces: str = "."
    """Folder of the trace files."""
    seed: int = 0
    """Seed of jitter and loss."""
    allow_wider_listen: bool = Field(default=False, validation_alias="SKYSHORE_ALLOW_WIDER_LISTEN")
    """Whether to listen where other machines can connect. Without it, only loopback is allowed."""
    redis_url: str = Field(default="", validation_alias="SKYSHORE_REDIS_URL")
    """State store that gets the measured links, each under the id of its node; empty for none."""
    log_level: str = Field(default="info", validation_alias="SKYSHORE_LOG_LEVEL")
    """debug, info, warning or error."""
    log_json: bool = Field(default=True, validation_alias="SKYSHORE_LOG_JSON")
    """One JSON object per line; false for readable text."""
