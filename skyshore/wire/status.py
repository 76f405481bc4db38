"""The one table from domain errors to transports.

==================  ===================  ====
domain error        gRPC status          HTTP
==================  ===================  ====
InvalidTask         INVALID_ARGUMENT     400
PromptTooLong       INVALID_ARGUMENT     400
InvalidMedia        INVALID_ARGUMENT     422
PayloadTooLarge     INVALID_ARGUMENT     413
NotFound            NOT_FOUND            404
PermissionDenied    PERMISSION_DENIED    403
NoFeasibleArm       FAILED_PRECONDITION  409
TaskEnded           FAILED_PRECONDITION  409
QueueFull           RESOURCE_EXHAUSTED   429
StoreBusy           RESOURCE_EXHAUSTED   429
DiskFull            RESOURCE_EXHAUSTED   507
QuotaExceeded       RESOURCE_EXHAUSTED   507
NodeUnavailable     UNAVAILABLE          503
StoreUnavailable    UNAVAILABLE          503
DiskUnavailable     UNAVAILABLE          503
NodeDied            UNAVAILABLE          503
NoAnswer            UNAVAILABLE          503
DeadlineExceeded    DEADLINE_EXCEEDED    504
BadMessage          INTERNAL             500
Internal, others    INTERNAL             500
==================  ===================  ====
"""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from skyshore.domain.errors import (
    BadMessage,
    DeadlineExceeded,
    DiskFull,
    DiskUnavailable,
    Internal,
    InvalidMedia,
    InvalidTask,
    NoAnswer,
    NodeDied,
    NodeUnavailable,
    NoFeasibleArm,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    PromptTooLong,
    QueueFull,
    QuotaExceeded,
    SkyshoreError,
    StoreBusy,
    StoreUnavailable,
    TaskEnded,
)

TABLE: dict[type[SkyshoreError], tuple[grpc.StatusCode, int]] = {
    InvalidTask: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    PromptTooLong: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    InvalidMedia: (grpc.StatusCode.INVALID_ARGUMENT, 422),
    PayloadTooLarge: (grpc.StatusCode.INVALID_ARGUMENT, 413),
    NotFound: (grpc.StatusCode.NOT_FOUND, 404),
    PermissionDenied: (grpc.StatusCode.PERMISSION_DENIED, 403),
    NoFeasibleArm: (grpc.StatusCode.FAILED_PRECONDITION, 409),
    TaskEnded: (grpc.StatusCode.FAILED_PRECONDITION, 409),
    QueueFull: (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    StoreBusy: (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    DiskFull: (grpc.StatusCode.RESOURCE_EXHAUSTED, 507),
    QuotaExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, 507),
    NodeUnavailable: (grpc.StatusCode.UNAVAILABLE, 503),
    StoreUnavailable: (grpc.StatusCode.UNAVAILABLE, 503),
    DiskUnavailable: (grpc.StatusCode.UNAVAILABLE, 503),
    NodeDied: (grpc.StatusCode.UNAVAILABLE, 503),
    NoAnswer: (grpc.StatusCode.UNAVAILABLE, 503),
    DeadlineExceeded: (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    Internal: (grpc.StatusCode.INTERNAL, 500),
    BadMessage: (grpc.StatusCode.INTERNAL, 500),
}

ERROR_CODE_KEY = "skyshore-error-code"
RETRY_AFTER_KEY = "skyshore-retry-after-s"
PARAM_KEY = "skyshore-param"
BEGUN = (("skyshore-begun", "1"),)
"""Initial metadata of a node that has a segment in work: a node that is lost before it sends this had nothing."""

_BY_WORD = {error.code: error for error in TABLE}
# INVALID_ARGUMENT stands for several errors; without the word the plainest one is right.
_BY_STATUS: dict[grpc.StatusCode, type[SkyshoreError]] = {
    status: error for error, (status, _) in reversed(list(TABLE.items()))
}
STATUS_BY_NUMBER: dict[int, grpc.StatusCode] = {status.value[0]: status for status in grpc.StatusCode}


def _row(error: BaseException) -> tuple[grpc.StatusCode, int]:
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return TABLE[Internal]


def grpc_status(error: BaseException) -> grpc.StatusCode:
    """Status of a domain error; INTERNAL for anything else."""
    return _row(error)[0]


def http_status(error: BaseException) -> int:
    """HTTP status of a domain error; 500 for anything else."""
    return _row(error)[1]


def trailing_metadata(error: SkyshoreError) -> tuple[tuple[str, str], ...]:
    """What the status code alone cannot say, as gRPC trailing metadata."""
    pairs = [(ERROR_CODE_KEY, error.code)]
    if error.retry_after_s is not None:
        pairs.append((RETRY_AFTER_KEY, f"{error.retry_after_s:g}"))
    if error.param is not None:
        pairs.append((PARAM_KEY, error.param))
    return tuple(pairs)


def to_domain(
    status: grpc.StatusCode,
    message: str,
    *,
    word: str = "",
    retry_after_s: float | None = None,
    param: str | None = None,
) -> SkyshoreError:
    """Rebuild the domain error on the caller's side, by its word if there is one, else by its status."""
    kind = _BY_WORD.get(word) or _BY_STATUS.get(status, Internal)
    return kind(message, retry_after_s=retry_after_s, param=param)


def from_rpc_error(error: grpc.aio.AioRpcError) -> SkyshoreError:
    """Rebuild the domain error of a failed plain gRPC call."""
    # grpc.aio hands out its own Metadata class, whose iteration yields pairs.
    found: Mapping[str, str] = {str(key): str(value) for key, value in (error.trailing_metadata() or ())}
    retry_after, word = found.get(RETRY_AFTER_KEY), found.get(ERROR_CODE_KEY, "")
    # Without our code the words are gRPC's own: they contain addresses, which callers must not see.
    return to_domain(
        error.code(),
        (error.details() if word else "") or f"the node or service cannot be reached ({error.code().name}); try again",
        word=word,
        retry_after_s=float(retry_after) if retry_after else None,
        param=found.get(PARAM_KEY),
    )
