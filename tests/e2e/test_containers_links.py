"""Emulated links between containers: callers reach nodes through them only, and feel what they are set to."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.containers_system import UP_S, Containers, call, why_no_engine

pytestmark = [
    pytest.mark.timeout(UP_S + 120),
    pytest.mark.skipif(bool(why_no_engine()), reason=f"no containers: {why_no_engine()}"),
]

DELAY_S = 0.4


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Emulated nodes: links do not care what computes."""
    no_models = tmp_path_factory.mktemp("no-models")
    no_models.chmod(0o755)
    environment = {"SKYSHORE_MODELS": str(no_models), "SKYSHORE_LINKS_PORT": "0"}
    system = Containers("skyshore-e2e-links", layers=("links", "test"), environment=environment)
    system.down()
    try:
        system.up()
        yield system
    finally:
        system.down()


def seconds_to_answer(system: Containers) -> float:
    began_s = time.monotonic()
    system.complete(2)
    return time.monotonic() - began_s


def test_a_slow_link_is_felt_and_carries_every_byte_to_its_node(system: Containers) -> None:
    links = f"http://{system.compose('port', 'links', '7190').stdout.strip()}/links"
    system.place_by("cloud_only")
    seconds_to_answer(system)  # connects
    before, _ = call(f"{links}/cloud-1")
    assert before["up_bytes"] > 0
    assert before["connections"] >= 1
    call(f"{links}/cloud-1", {"up": {"delay_s": DELAY_S}, "down": {"delay_s": DELAY_S}}, "PUT")
    assert seconds_to_answer(system) > 2 * DELAY_S
    after, _ = call(f"{links}/cloud-1")
    assert after["up_bytes"] > before["up_bytes"]
    assert after["down_bytes"] > before["down_bytes"]
    system.place_by("edge_only")
    assert seconds_to_answer(system) < 2 * DELAY_S, "the edge's links are as quick as before"


def test_the_link_emulator_is_locked_down_like_the_rest_and_logs_no_traceback(system: Containers) -> None:
    about = system.inspect("links")
    assert about["Config"]["User"] == "10001:10001"
    assert about["HostConfig"]["ReadonlyRootfs"]
    assert "Traceback" not in system.logs()
