"""Does a process serve? One check per kind of process, each saying in words what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from skyshore.runtime.healthcheck import grpc_problem, http_problem


class Probe(StrEnum):
    """How a process is asked."""

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
        """The port it is asked on."""
        return urlsplit(self.address if "://" in self.address else f"//{self.address}").port or 0

    def problem(self, timeout_s: float = 2.0) -> str:
        """Empty when it serves, else what is wrong. Blocks up to `timeout_s`."""
        if self.probe is Probe.GRPC:
            return grpc_problem(self.address, timeout_s)
        if self.probe is Probe.HTTP:
            return http_problem(self.address, timeout_s)
        return _redis_problem(self.address, timeout_s)


def _redis_problem(url: str, timeout_s: float) -> str:
    import redis  # noqa: PLC0415 (a tenth of a second that most commands need not pay)

    try:
        with redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s) as client:
            client.ping()
    except (redis.RedisError, OSError, ValueError) as error:
        return f"{url} does not answer: {error}"
    return ""
