"""What can be set about a node. Read once, from the environment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class NodeSettings(BaseSettings):
    """Frozen; the variable of a field is SKYSHORE_NODE_ and its name unless an alias says otherwise."""

    model_config = SettingsConfigDict(env_prefix="SKYSHORE_NODE_", frozen=True, extra="ignore", populate_by_name=True)

    engine: str
    """Which engine serves the models; the processes narrow the choice."""
    id: str
    """Name of the node, unique in the fleet."""
    listen: str = "127.0.0.1:0"
    """host:port of the WorkerService; port 0 takes a free one."""
    advertise: str = ""
    """host:port that callers shall use, if not the one listened on (a relay, a container's name)."""
    models: str = "smollm2-135m:int4,ssd-mobilenet"
    """Models offered, comma-separated; a language model may carry a precision after a colon."""
    threads: int = Field(default=1, ge=1)
    """Threads one engine computes with; also the cores the modelled power refers to."""
    slots: int = Field(default=8, ge=1)
    """Language-model tasks decoded together."""
    profile: str = ""
    """File of a node profile (JSON), or the name of modelled hardware for an emulated node: instant, t4, a100 ..."""
    fallback: Literal["", "emulated"] = ""
    """`emulated`: without model files, start emulated instead of failing, and say so everywhere."""
    slowdown: float = Field(default=1.0, ge=1.0)
    """Makes this node so many times slower, to emulate unequal nodes on one machine. Shown in the engine's name."""
    time_scale: float = Field(default=1.0, gt=0)
    """Emulated engines only: model seconds per real second."""
    drift_file: str = ""
    """Emulated engines only: file with the factor by which work takes longer than promised; read as it changes."""
    energy: Literal["auto", "nvml", "rapl", "modelled"] = "auto"
    """Meter; auto takes the first that works. Emulated nodes are always modelled."""
    idle_watts: float = Field(default=10.0, ge=0)
    """Power when nothing runs: the idle share of measured joules, and the base of modelled ones."""
    busy_watts: float = Field(default=15.0, ge=0)
    """Modelled power above idle with all threads busy."""
    grace_s: float = Field(default=30.0, ge=0)
    """Time for running tasks to end after SIGTERM."""
    upstream_url: str = "http://127.0.0.1:8000/v1"
    """Engine `openai`: base URL of the server that does the work."""
    upstream_key: str = ""
    """Engine `openai`: bearer token, if the server wants one."""
    metrics_port: int = Field(default=0, ge=0)
    """Port of /metrics, on the interface listened on; 0 serves none."""
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", validation_alias="SKYSHORE_REDIS_URL")
    """State store."""
    log_level: str = Field(default="info", validation_alias="SKYSHORE_LOG_LEVEL")
    """debug, info, warning or error."""
    log_json: bool = Field(default=True, validation_alias="SKYSHORE_LOG_JSON")
    """One JSON object a line; false for people."""
