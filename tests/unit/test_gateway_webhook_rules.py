"""Where a webhook may go, and its signature."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from pydantic import ValidationError

from gateway.settings import GatewaySettings
from gateway.video.webhook_rules import LONGEST_WAIT_S, TRIES, AllowedHosts, WebhookTarget, signature, wait_s
from skyshore.domain.errors import InvalidTask, PermissionDenied

ALLOWED = AllowedHosts(["hooks.example.org", "10.1.2.0/24", "fd00::7"])


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hooks.example.org/a?b=c", WebhookTarget("https", "hooks.example.org", 443, "/a?b=c")),
        ("http://HOOKS.example.org.", WebhookTarget("http", "hooks.example.org", 80, "/")),
        ("http://10.1.2.9:8080/x", WebhookTarget("http", "10.1.2.9", 8080, "/x")),
        ("https://[fd00::7]/x", WebhookTarget("https", "fd00::7", 443, "/x")),
        ("http://[::ffff:10.1.2.9]/", WebhookTarget("http", "::ffff:10.1.2.9", 80, "/")),
    ],
)
def test_a_listed_host_is_allowed(url: str, target: WebhookTarget) -> None:
    assert ALLOWED.check(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/",
        "https://evil.hooks.example.org/",
        "https://hooks.example.org.evil.net/",
        "http://10.1.3.9/",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://169.254.169.254/latest/",
    ],
)
def test_any_other_host_is_not(url: str) -> None:
    with pytest.raises(PermissionDenied):
        ALLOWED.check(url)


@pytest.mark.parametrize(
    "url",
    ["", "hooks.example.org", "ftp://hooks.example.org/", "file:///etc/passwd", "http://", "http://[", "http://h:99999/",
     "http://hooks.example.org@evil.net/", "http://user:word@hooks.example.org/", "http://hooks.example.örg/"],
)  # fmt: skip
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidTask):
        ALLOWED.check(url)


def test_without_a_list_there_are_no_webhooks() -> None:
    with pytest.raises(PermissionDenied, match="sends no webhooks"):
        AllowedHosts([]).check("https://hooks.example.org/")


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        (["93.184.216.34"], "93.184.216.34"),
        (["127.0.0.1", "93.184.216.34"], "93.184.216.34"),
        (["10.1.2.9"], "10.1.2.9"),
        (["10.1.3.9", "192.168.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0"], None),
        (["224.0.0.1", "100.64.0.1"], None),
        ([], None),
    ],
)
def test_a_name_must_lead_to_a_public_or_a_listed_address(found: list[str], chosen: str | None) -> None:
    assert ALLOWED.choose(found) == chosen


def test_the_signature_is_hmac_sha256_over_timestamp_and_body() -> None:
    expected = hmac.new(b"key", b'1700000000.{"a":1}', hashlib.sha256).hexdigest()
    assert signature("key", "1700000000", b'{"a":1}') == f"sha256={expected}"


def test_waits_grow_up_to_a_limit_and_end() -> None:
    waits = [wait_s(tries) for tries in range(1, TRIES + 1)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_WAIT_S, None]


def test_hosts_without_a_key_are_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match="WEBHOOK_SECRET"):
        GatewaySettings(gateway_webhook_hosts=("hooks.example.org",))
