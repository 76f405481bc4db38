"""The rule for listeners: on loopback, unless a setting allows more."""

from __future__ import annotations

import ipaddress


def check_listen(listen: str, *, allow_wider: bool) -> None:
    """Refuse an address that other machines can reach.

    A host name counts as reachable, except `localhost`: what it resolves to may change.

    Raises:
        ValueError: `listen` (host:port) is not on loopback, and `allow_wider` is false.
    """
    if not allow_wider and not _is_loopback(listen.rpartition(":")[0].strip("[]")):
        raise ValueError(
            f"{listen} can be reached from other machines, and nothing here asks callers who they are; listen on "
            "127.0.0.1, or set SKYSHORE_ALLOW_WIDER_LISTEN=true where only trusted machines reach this address"
        )


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
