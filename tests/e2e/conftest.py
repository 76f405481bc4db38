"""Fixtures: systems of local processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.local_system import UP_S, LocalSystem


@pytest.fixture
def skyshore(tmp_path: Path) -> Iterator[LocalSystem]:
    """Nothing runs yet; at the end of the test, the system is stopped."""
    command = LocalSystem(tmp_path / "state")
    yield command
    command("down", check=False)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """A system of emulated nodes, shared by a module."""
    command = LocalSystem(tmp_path_factory.mktemp("emulated"))
    command("up", "--detach", "--any-ports", "--emulated", timeout_s=UP_S)
    yield command
    command("down")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """A system with the real models, fetched if necessary."""
    from rich.console import Console

    from cli.up import MODELS, fetch_missing

    if missing := fetch_missing((*MODELS, "bikes"), Console(stderr=True)):
        pytest.skip(f"models are not in the cache and cannot be fetched: {'; '.join(missing)}")
    command = LocalSystem(tmp_path_factory.mktemp("real"))
    command("up", "--detach", "--any-ports", timeout_s=UP_S)
    yield command
    command("down")
