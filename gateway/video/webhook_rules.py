"""Which addresses a webhook may have, and how it is signed. Pure.

The list of allowed hosts has names (`hooks.example.org`), and addresses or networks (`10.1.2.0/24`). A URL's host must
be on the list. A name must lead to a public address, unless that address is on the list too: else a caller could use
the gateway to reach its own network.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from skyshore.domain.errors import InvalidTask, PermissionDenied
from skyshore.runtime.backoff import doubled_wait_s

Address = IPv4Address | IPv6Address

FIELD = "webhook"
TRIES = 8
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Wait after the first failed try; it doubles after each other one. The eight tries take about two minutes."""
SIGNATURE_HEADER, TIMESTAMP_HEADER = "x-skyshore-signature", "x-skyshore-timestamp"


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """Where a webhook goes."""

    scheme: str
    host: str
    port: int
    path: str


class AllowedHosts:
    """The list, parsed."""

    def __init__(self, entries: Iterable[str]) -> None:
        """An entry that is no address and no network is a name."""
        self._names: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            try:
                self._networks.append(ip_network(entry))
            except ValueError:
                self._names.add(entry.lower().rstrip("."))

    def check(self, url: str) -> WebhookTarget:
        """Parse a URL and check its host.

        Raises:
            InvalidTask: it is no http or https URL, or it has a user name.
            PermissionDenied: webhooks are off, or the host is not on the list.
        """
        if not self._names and not self._networks:
            raise PermissionDenied("this server sends no webhooks; poll the task or follow its /events", param=FIELD)
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower().rstrip("."), parts.port
        except ValueError as error:
            raise InvalidTask(f"the webhook is no valid URL: {error}", param=FIELD) from error
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or not url.isascii():
            raise InvalidTask("the webhook must be an http or https URL without a user name", param=FIELD)
        literal = _address(host)
        if not (self.is_listed(literal) if literal else host in self._names):
            raise PermissionDenied(f"webhooks to '{host}' are not allowed; ask who runs this server", param=FIELD)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return WebhookTarget(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path)

    def is_listed(self, address: Address) -> bool:
        """Whether the address itself is on the list."""
        return any(address in network for network in self._networks)

    def choose(self, found: Sequence[str]) -> str | None:
        """The first of the addresses of a host that may be connected to."""
        addresses = [address for text in found if (address := _address(text))]
        return next((str(each) for each in addresses if self.is_listed(each) or _is_public(each)), None)


def _address(text: str) -> Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    # The same host in another notation must not pass as another address.
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 of "timestamp.body" in hexadecimal, with its name before it."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"sha256={digest}"


def wait_s(tries: int) -> float | None:
    """Wait after this many failed tries; None: give up."""
    return None if tries >= TRIES else doubled_wait_s(FIRST_WAIT_S, LONGEST_WAIT_S, tries - 1)
