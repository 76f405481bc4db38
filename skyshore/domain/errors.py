"""All errors that a caller can receive. Transport codes are in one table, `skyshore.wire.status`.

SkyshoreError
 ├─ InvalidTask          the request itself is wrong; a retry cannot help
 │   ├─ PromptTooLong
 │   └─ InvalidMedia
 ├─ NotFound             an unknown task, model or policy
 ├─ PermissionDenied     a file or address the server may not read
 ├─ TaskEnded            the task has ended; it cannot be changed
 ├─ NoFeasibleArm        no arm of the fleet can serve the task
 ├─ QueueFull            no free slot now; `retry_after_s` says when to retry
 │   ├─ StoreBusy        this process has too many calls to the state store open
 │   └─ DiskFull         no room for the file
 │       └─ QuotaExceeded  this caller's files take all the room that one caller gets
 ├─ NodeUnavailable      no node, or a node or service cannot be reached
 │   ├─ NodeDied         the node disconnected while it worked on the task
 │   ├─ NoAnswer         a service did not answer in the time that a healthy one needs
 │   ├─ StoreUnavailable the state store is away, or refuses the command
 │   └─ DiskUnavailable  the disk refuses the file for another reason than its size
 ├─ DeadlineExceeded     the answer was not complete in time
 └─ Internal             a fault in Skyshore
     └─ BadMessage       a message between our processes lacks a part, or holds what this version does not know
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
    """The upload is not a video that this system can read."""

    code = "invalid_media"


class PayloadTooLarge(InvalidTask):
    """The upload is over the limit."""

    code = "payload_too_large"


class NotFound(SkyshoreError):
    """An unknown task, model or policy."""

    code = "not_found"


class PermissionDenied(SkyshoreError):
    """A file or address that the server may not read."""

    code = "permission_denied"


class TaskEnded(SkyshoreError):
    """The task has ended, so it cannot be changed, or has no result."""

    code = "task_ended"


class NoFeasibleArm(SkyshoreError):
    """No arm of the live fleet can serve the task, now or later."""

    code = "no_feasible_arm"


class QueueFull(SkyshoreError):
    """All slots and queues are full."""

    code = "queue_full"


class StoreBusy(QueueFull):
    """All connections of this process to the state store are in use. The store itself may be well."""

    code = "store_busy"


class DiskFull(QueueFull):
    """The disk has no room left for the file, or would have less than the reserve after it."""

    code = "disk_full"


class QuotaExceeded(DiskFull):
    """The files of this caller take all the room that one caller may have."""

    code = "quota_exceeded"


class NodeUnavailable(SkyshoreError):
    """A process that the task needs is away: no node is registered, or the chosen node disconnected."""

    code = "node_unavailable"


class StoreUnavailable(NodeUnavailable):
    """The state store is away, or refuses the command."""

    code = "store_unavailable"

    detail = ""
    """For the operator's log only: the address and the server's own words."""


class DiskUnavailable(NodeUnavailable):
    """The disk refuses a file: no permission, an input/output error, a missing folder."""

    code = "disk_unavailable"


class NodeDied(NodeUnavailable):
    """The node had begun the task and disconnected: perhaps the task ended it."""

    code = "node_died"


class NoAnswer(NodeUnavailable):
    """A service is connected but silent. This is a limit of the client, not the deadline of the caller."""

    code = "no_answer"


class DeadlineExceeded(SkyshoreError):
    """The deadline has passed."""

    code = "deadline_exceeded"


class Internal(SkyshoreError):
    """A fault in Skyshore."""

    code = "internal"


class BadMessage(Internal):
    """A message between our processes lacks a part, or holds what this version does not know.

    In a request that is a mistake of its sender.
    """

    code = "bad_message"
