"""What can be set about the link emulator. Read once, from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LinksSettings(BaseSettings):
    """Frozen; the variable of a field is SKYSHORE_LINKS_ and its name unless an alias says otherwise."""

    model_config = SettingsConfigDict(env_prefix="SKYSHORE_LINKS_", frozen=True, extra="ignore", populate_by_name=True)

    listen: str = "127.0.0.1:7190"
    """host:port of the HTTP interface that shows and changes links."""
    file: str = ""
    """JSON file with the links to begin with: a list of what POST /links takes."""
    traces: str = "."
    """Folder in which trace names are looked up."""
    seed: int = 0
    """Fixes jitter and loss."""
    redis_url: str = Field(default="", validation_alias="SKYSHORE_REDIS_URL")
    """State store to which measured links are told, each under its name, which is its node's; empty tells nobody."""
    log_level: str = Field(default="info", validation_alias="SKYSHORE_LOG_LEVEL")
    """debug, info, warning or error."""
    log_json: bool = Field(default=True, validation_alias="SKYSHORE_LOG_JSON")
    """One JSON object a line; false for people."""
