"""One call to a service of the control plane, with the two limits of its time kept apart."""

from __future__ import annotations

from typing import TypeVar

from skyshore.domain.errors import DeadlineExceeded, NoAnswer
from skyshore.mux.client import MuxChannel, WireMessage

ReplyT = TypeVar("ReplyT", bound=WireMessage)

LONGEST_S = 5.0
"""Longest wait for one answer. A healthy service needs milliseconds, so a longer silence is its fault."""


async def call_service(
    channel: MuxChannel,
    service: str,
    method: str,
    request: WireMessage,
    response_type: type[ReplyT],
    *,
    deadline_s: float | None = None,
) -> ReplyT:
    """Ask the service at the other end of `channel`; `service` is its name in messages.

    Raises:
        NoAnswer: silent for `LONGEST_S`, although the caller's deadline is later. Asking again may help.
        DeadlineExceeded: the caller's own `deadline_s` has passed.
        SkyshoreError: the error of the method; NodeUnavailable when the service cannot be reached.
    """
    limit_s = LONGEST_S if deadline_s is None else min(LONGEST_S, deadline_s)
    try:
        return await channel.unary(method, request, response_type, limit_s)
    except DeadlineExceeded as error:
        if limit_s == deadline_s:
            raise
        raise NoAnswer(f"the {service} did not answer within {limit_s:g} s; try again", retry_after_s=1.0) from error
