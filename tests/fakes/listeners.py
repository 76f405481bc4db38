"""Which sockets of some processes other machines can reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import psutil


def with_children(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes and everything that they started."""
    return [each for process in processes for each in (process, *process.children(recursive=True))]


def listening(processes: Iterable[psutil.Process]) -> set[str]:
    """host:port of every TCP socket that listens."""
    return {
        f"{entry.laddr.ip}:{entry.laddr.port}"
        for process in processes
        for entry in process.net_connections("tcp")
        if entry.status == psutil.CONN_LISTEN
    }


def wider_than_loopback(addresses: Iterable[str]) -> list[str]:
    """Those that are not on loopback."""
    return [each for each in addresses if not _is_loopback(each.rpartition(":")[0])]


def _is_loopback(host: str) -> bool:
    ip = ipaddress.ip_address(host)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None  # gRPC listens on ::ffff:127.0.0.1
    return (mapped or ip).is_loopback
