"""`python -m skyshore.runtime.healthcheck ADDRESS`: exit 0 when the process there says it serves. For containers."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 3.0

_SERVING = b"\x08\x01"
"""`HealthCheckResponse{status: SERVING}` on the wire: two bytes, so that a check need not import protobuf."""


def grpc_problem(address: str, timeout_s: float = TIMEOUT_S) -> str:
    """Ask `grpc.health.v1` at host:port about the whole process; empty when it serves, else what is wrong."""
    import grpc  # noqa: PLC0415 (the HTTP check must not pay for it)

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = check(b"", timeout=timeout_s)
        except grpc.RpcError as error:
            return f"{address} answers {error.code().name}: {error.details()}"
    return "" if answer == _SERVING else f"{address} is up but not serving"


def http_problem(url: str, timeout_s: float = TIMEOUT_S) -> str:
    """GET `url`; empty when it answers 2xx, else what is wrong."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s):
            return ""
    except urllib.error.HTTPError as error:
        return f"{url} answers {error.code}: {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return f"{url} does not answer: {error}"


def main(arguments: list[str]) -> int:
    """Check the one address given: host:port for gRPC, a URL for HTTP."""
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
