"""The one table of how a task ends: which errors are tried again, and how each error is recorded.

=======================  =========  =================  ==================
error                    try again  status             code
=======================  =========  =================  ==================
InvalidTask              no         cancelled          code of the error
DeadlineExceeded         no         deadline_exceeded  deadline_exceeded
QueueFull                yes        rejected           queue_full
NodeUnavailable          yes        failed             node_unavailable
Internal                 yes        failed             internal
other SkyshoreError      no         failed             code of the error
any other Exception      no         failed             internal
CancelledError           no         cancelled          (empty)
=======================  =========  =================  ==================

The policy learns from every status except `cancelled`. An InvalidTask is `cancelled`, because a mistake of the caller
says nothing about the arm. The caller sees every task that ended with a code as failed, whatever its status.
"""

from __future__ import annotations

from dataclasses import dataclass

from skyshore.domain.errors import (
    DeadlineExceeded,
    Internal,
    InvalidTask,
    NodeUnavailable,
    QueueFull,
    SkyshoreError,
)
from skyshore.domain.outcome import OutcomeStatus

RETRIED = (NodeUnavailable, QueueFull, Internal)
"""Failures of one node, or of one moment: another node or a later try may succeed."""

_STATUSES: tuple[tuple[type[BaseException], OutcomeStatus], ...] = (
    (InvalidTask, OutcomeStatus.CANCELLED),
    (DeadlineExceeded, OutcomeStatus.DEADLINE_EXCEEDED),
    (QueueFull, OutcomeStatus.REJECTED),
    (Exception, OutcomeStatus.FAILED),
    (BaseException, OutcomeStatus.CANCELLED),
)
"""The first row whose type fits counts."""


@dataclass(frozen=True, slots=True)
class TaskEnding:
    """How a task, or one attempt at it, ended."""

    status: OutcomeStatus
    message: str = ""
    code: str = ""
    """Code of the error that ended it (see `SkyshoreError.code`). Empty for a success and for a cancellation."""


COMPLETED = TaskEnding(OutcomeStatus.OK)


def ending_of(error: BaseException) -> TaskEnding:
    """The ending of a task that `error` stopped, by the table above."""
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    if isinstance(error, SkyshoreError):
        return TaskEnding(status, error.message, error.code)
    if isinstance(error, Exception):
        return TaskEnding(status, type(error).__name__, Internal.code)
    return TaskEnding(status, "the task was cancelled")
