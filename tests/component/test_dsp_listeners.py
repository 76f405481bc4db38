"""No process of a group of ranks listens beyond this machine."""

from __future__ import annotations

import os
from typing import Any

import psutil
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'skyshore[cloud]'")

from cloud_node.dsp.processes import run_processes  # noqa: E402 (torch may be absent)
from cloud_node.dsp.rendezvous import loopback_store  # noqa: E402

LOOPBACK = {"127.0.0.1", "::1"}


def listening(process: psutil.Process) -> set[str]:
    return {each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN}


def listening_in_a_rank(*_: Any) -> set[str]:
    return listening(psutil.Process(os.getpid()))


def test_the_store_of_a_group_listens_on_loopback_only() -> None:
    store = loopback_store()
    addresses = {
        each.laddr.ip
        for each in psutil.Process().net_connections("inet")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == store.port
    }
    assert addresses == {"127.0.0.1"}


def test_ranks_listen_on_loopback_only() -> None:
    for addresses in run_processes(2, listening_in_a_rank):
        assert addresses <= LOOPBACK
