"""Request options: class, deadline, quality and trace, from headers or form fields."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from skyshore.domain.errors import InvalidTask
from skyshore.domain.task import SERVICE_CLASSES, ServiceClass

CLASS_HEADER = "x-skyshore-class"
DEADLINE_HEADER = "x-skyshore-deadline-s"
QUALITY_HEADER = "x-skyshore-min-quality"
MAX_DEADLINE_S = 86_400.0
"""One day. The state of ended tasks is kept no longer than that."""

# Version 00 of https://www.w3.org/TR/trace-context/: trace id, parent id, flags; neither id all zero.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The options of one request, with defaults filled in."""

    service_class: str
    priority: int
    """Of the class."""
    deadline_s: float
    min_quality: float
    traceparent: str
    request_id: str


def read_request_options(
    headers: Mapping[str, str],
    *,
    service_class: str | None = None,
    deadline_s: float | None = None,
    min_quality: float | None = None,
    classes: Mapping[str, ServiceClass] = SERVICE_CLASSES,
) -> RequestOptions:
    """Read the options. Arguments take precedence over `headers`; the service class gives the defaults.

    Args:
        headers: request headers by lower-case name.
        service_class: name of the class, or None to read the header.
        deadline_s: seconds from arrival, or None to read the header.
        min_quality: 0..1, or None to read the header.
        classes: the known classes by name.

    Raises:
        InvalidTask: an unknown class, or a header that is not a number or is out of range. `param` names the source.
    """
    name = service_class or headers.get(CLASS_HEADER) or "standard"
    chosen = classes.get(name)
    if chosen is None:
        known = ", ".join(sorted(classes))
        param = "class" if service_class else CLASS_HEADER
        raise InvalidTask(f"no service class '{name}'; known are {known}", param=param)
    if deadline_s is None:
        deadline_s = _number(headers, DEADLINE_HEADER, chosen.deadline_s, 0.001, MAX_DEADLINE_S)
    if min_quality is None:
        min_quality = _number(headers, QUALITY_HEADER, chosen.min_quality, 0.0, 1.0)
    return RequestOptions(
        service_class=name,
        priority=chosen.priority,
        deadline_s=deadline_s,
        min_quality=min_quality,
        traceparent=trace_of(headers.get("traceparent", "")),
        request_id=_request_id(headers.get("x-request-id", "")),
    )


def trace_of(traceparent: str) -> str:
    """The caller's trace context if it is valid, else a new one, as the standard asks."""
    if traceparent and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def new_task_id() -> str:
    """A new unique id: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def _number(headers: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = headers.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise InvalidTask(f"{name} must be a number from {least:g} to {most:g}, not '{text}'", param=name)
    return value


def _request_id(given: str) -> str:
    return given if _REQUEST_ID.fullmatch(given) else new_task_id()
