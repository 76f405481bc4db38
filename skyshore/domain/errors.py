"""Every failure a caller can meet. They carry no transport codes: `skyshore.wire.status` holds the one table.

SkyshoreError
 ├─ InvalidTask          the request itself is wrong; asking again will not help
 │   ├─ PromptTooLong
 │   └─ InvalidMedia
 ├─ NotFound             an unknown task, model or policy
 ├─ PermissionDenied     a file or address the server may not read
 ├─ NoFeasibleArm        nothing in the fleet can meet the demands
 ├─ QueueFull            come back later; `retry_after_s` says when
 ├─ NodeUnavailable      no node, or the node went away
 ├─ DeadlineExceeded     the answer would have come too late
 └─ Internal             our fault
"""

from __future__ import annotations


class SkyshoreError(Exception):
    """Base of all failures. The message is for the caller and says what to do next."""

    code = "internal"
    """Stable, machine-readable word sent to callers."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        """`param` names the offending field, `retry_after_s` the wait after which a retry may succeed."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidTask(SkyshoreError):
    """The request itself is wrong."""

    code = "invalid_request"


class PromptTooLong(InvalidTask):
    """Prompt plus answer exceed the model's context."""

    code = "context_length_exceeded"


class InvalidMedia(InvalidTask):
    """The upload is no video this system can read."""

    code = "invalid_media"


class PayloadTooLarge(InvalidTask):
    """The upload is over the limit."""

    code = "payload_too_large"


class NotFound(SkyshoreError):
    """An unknown task, model or policy."""

    code = "not_found"


class PermissionDenied(SkyshoreError):
    """A file or address outside what the server may read."""

    code = "permission_denied"


class NoFeasibleArm(SkyshoreError):
    """No arm of the live fleet can meet the demands, however long one waits."""

    code = "no_feasible_arm"


class QueueFull(SkyshoreError):
    """All room is taken."""

    code = "queue_full"


class NodeUnavailable(SkyshoreError):
    """No node is there, or the one chosen went away."""

    code = "node_unavailable"


class DeadlineExceeded(SkyshoreError):
    """The time allowed is over."""

    code = "deadline_exceeded"


class Internal(SkyshoreError):
    """A fault of ours."""

    code = "internal"
