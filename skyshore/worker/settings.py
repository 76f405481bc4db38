"""The settings of a node, from environment variables, read once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class NodeSettings(BaseSettings):
    """The variable of a field is SKYSHORE_NODE_ plus its name, unless it has an alias."""

    model_config = SettingsConfigDict(env_prefix="SKYSHORE_NODE_", frozen=True, extra="ignore", populate_by_name=True)

    engine: str
    """Engine that serves the models. Each node process allows some."""
    id: str
    """Name of the node, unique in the fleet."""
    listen: str = "127.0.0.1:0"
    """host:port of the WorkerService; port 0 takes a free one."""
    advertise: str = ""
    """host:port for callers, if it differs from `listen` (a relay, the name of a container)."""
    models: str = "smollm2-135m:int4,ssd-mobilenet"
    """Models to serve, separated by commas. A language model may have a precision after a colon."""
    threads: int = Field(default=1, ge=1)
    """Threads of one engine; also the number of cores in the power model."""
    slots: int = Field(default=8, ge=1)
    """Language-model tasks in one decode batch."""
    profile: str = ""
    """File of a node profile (JSON), or the name of modelled hardware for an emulated node: instant, t4, a100 ..."""
    fallback: Literal["", "emulated"] = ""
    """`emulated`: if model files are missing, run emulated instead of failing; the engine's name shows it."""
    slowdown: float = Field(default=1.0, ge=1.0)
    """Factor by which this node is slowed down, to emulate unequal nodes on one machine. The engine's name shows it."""
    time_scale: float = Field(default=1.0, gt=0)
    """Emulated engines only: model seconds per real second."""
    drift_file: str = ""
    """Emulated engines only: file with the factor by which tasks take longer than their arms state. Read at changes."""
    energy: Literal["auto", "nvml", "rapl", "modelled"] = "auto"
    """Energy meter; `auto` means the first that works. Emulated nodes always use a model."""
    idle_watts: float = Field(default=10.0, ge=0)
    """Power in watts when nothing runs: for the idle share of measured joules and the base of modelled ones."""
    busy_watts: float = Field(default=15.0, ge=0)
    """Modelled power in watts above idle with all threads busy."""
    grace_s: float = Field(default=30.0, ge=0)
    """Seconds that running tasks may take after SIGTERM."""
    upstream_url: str = "http://127.0.0.1:8000/v1"
    """Engine `openai`: base URL of the upstream server."""
    upstream_key: str = ""
    """Engine `openai`: bearer token, if the server needs one."""
    metrics_port: int = Field(default=0, ge=0)
    """Port of /metrics on the host of `listen`; 0 serves none."""
    allow_wider_listen: bool = Field(default=False, validation_alias="SKYSHORE_ALLOW_WIDER_LISTEN")
    """Whether to listen where other machines can connect. Without it, only loopback is allowed."""
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", validation_alias="SKYSHORE_REDIS_URL")
    """Address of the state store."""
    log_level: str = Field(default="info", validation_alias="SKYSHORE_LOG_LEVEL")
    """debug, info, warning or error."""
    log_json: bool = Field(default=True, validation_alias="SKYSHORE_LOG_JSON")
    """True: one JSON object per line. False: coloured text."""
