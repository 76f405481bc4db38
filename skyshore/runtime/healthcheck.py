"""`python -m skyshore.runtime.healthcheck ADDRESS`: exit 0 if the process there is serving. For containers."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 3.0

_SERVING = b"\x08\x01"
"""`HealthCheckResponse{status: SERVING}` as bytes: so the check does not import protobuf."""


def grpc_problem(address: str, timeout_s: float = TIMEOUT_S) -> str:
    """Check `grpc.health.v1` of the process at host:port. Returns the problem; empty if it serves."""
    import grpc  # noqa: PLC0415 - the HTTP check does not need it

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = check(b"", timeout=timeout_s)
        except grpc.RpcError as error:
            return f"{address} answers {error.code().name}: {error.details()}"
    return "" if answer == _SERVING else f"{address} is up but not serving"


def http_problem(url: str, timeout_s: float = TIMEOUT_S) -> str:
    """GET `url`. Returns the problem; empty if the status is 2xx."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s):
            return ""
    except urllib.error.HTTPError as error:
        return f"{url} answers {error.code}: {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return f"{url} does not answer: {error}"


def main(arguments: list[str]) -> int:
    """Check one address: host:port for gRPC, a URL for HTTP. Returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m skyshore.runtime.healthcheck HOST:PORT | http://HOST:PORT/PATH", file=sys.stderr)
        return 2
    address = arguments[0]
    problem = http_problem(address) if address.startswith("http://") else grpc_problem(address)
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
