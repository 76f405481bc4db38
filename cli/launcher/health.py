"""Health checks: whether a process serves and, if not, what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from skyshore.runtime.healthcheck import grpc_problem, http_problem


class Probe(StrEnum):
    """Protocol of a health check."""

    GRPC = "grpc"
    HTTP = "http"
    REDIS = "redis"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """`address` is host:port for gRPC and a URL for the others."""

    probe: Probe
    address: str

    @property
    def port(self) -> int:
        """Port of the address."""
        return urlsplit(self.address if "://" in self.address else f"//{self.address}").port or 0

    def problem(self, timeout_s: float = 2.0) -> str:
        """Empty if the process serves, else what is wrong. Blocks up to `timeout_s` seconds."""
        if self.probe is Probe.GRPC:
            return grpc_problem(self.address, timeout_s)
        if self.probe is Probe.HTTP:
            return http_problem(self.address, timeout_s)
        return _redis_problem(self.address, timeout_s)


def _redis_problem(url: str, timeout_s: float) -> str:
    import redis  # noqa: PLC0415 (takes 0.1 s, which most commands do not need)

    try:
        with redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s) as client:
            client.ping()
    except (redis.RedisError, OSError, ValueError) as error:
        return f"{url} does not answer: {error}"
    return ""
