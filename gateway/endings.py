"""The one table of how a task ends: which errors are tried again, and how each error is recorded.

=======================  =========  =======  ============  =================  ==================
error                    try again  absence  node's fault  status             code
=======================  =========  =======  ============  =================  ==================
InvalidTask              no         no       no            cancelled          code of the error
DeadlineExceeded         no         no       no            deadline_exceeded  deadline_exceeded
QueueFull                yes        yes      no            rejected           queue_full
NodeUnavailable          yes        yes      yes           failed             node_unavailable
NoAnswer                 yes        yes      no            failed             no_answer
NodeDied                 yes        no       yes           failed             node_died
Internal                 yes        no       yes           failed             internal
other SkyshoreError      no         no       no            failed             code of the error
any other Exception      no         no       no            failed             internal
CancelledError           no         no       no            cancelled          (empty)
=======================  =========  =======  ============  =================  ==================

An absence says nothing about the task, which no node had begun. Accepted work waits for the end of an absence until its
deadline, and it counts as no try. DeadlineExceeded is the caller's own deadline; the time that a client gives a service
for one answer is a NoAnswer. A fault of the node counts in its circuit breaker (`gateway.breaker`).

The policy learns from every status except `cancelled`. An InvalidTask is `cancelled`, because a mistake of the caller
says nothing about the arm. The caller sees every task that ended with a code as failed, whatever its status.
"""

from __future__ import annotations

from dataclasses import dataclass

from skyshore.domain.errors import (
    DeadlineExceeded,
    Internal,
    InvalidTask,
    NoAnswer,
    NodeDied,
    NodeUnavailable,
    QueueFull,
    SkyshoreError,
)
from skyshore.domain.outcome import OutcomeStatus

RETRIED = (NodeUnavailable, QueueFull, Internal)
"""Failures of one node, or of one moment: another node or a later try may succeed."""
ABSENCES = (NodeUnavailable, QueueFull)
"""What a service raises when something is away or full. Of a node, NodeDied is none: see `is_absence`."""


def is_absence(error: BaseException) -> bool:
    """Whether something that the task needs is away or full: a failure that is not the task's own."""
    return isinstance(error, ABSENCES) and not isinstance(error, NodeDied)


def blames_node(error: BaseException) -> bool:
    """Whether the error of a task on a node is a fault of that node."""
    return isinstance(error, NodeUnavailable | Internal) and not isinstance(error, NoAnswer)


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
