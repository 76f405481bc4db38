"""The one table from domain errors to transports."""

import inspect

import grpc
import pytest

from skyshore.domain import errors
from skyshore.wire import status

EVERY_ERROR = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.SkyshoreError) and kind is not errors.SkyshoreError
]


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_every_domain_error_has_its_row_and_its_own_word(kind: type[errors.SkyshoreError]) -> None:
    assert kind in status.TABLE
    assert [other for other in EVERY_ERROR if other.code == kind.code] == [kind]


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_wire(kind: type[errors.SkyshoreError]) -> None:
    sent = kind("do this next", param="model", retry_after_s=1.5)
    metadata = dict(status.trailing_metadata(sent))

    received = status.to_domain(
        status.grpc_status(sent),
        sent.message,
        word=metadata[status.ERROR_CODE_KEY],
        retry_after_s=float(metadata[status.RETRY_AFTER_KEY]),
        param=metadata[status.PARAM_KEY],
    )

    assert type(received) is kind
    assert (received.message, received.param, received.retry_after_s) == ("do this next", "model", 1.5)


def test_a_status_without_a_word_becomes_the_plainest_error_of_that_status() -> None:
    assert type(status.to_domain(grpc.StatusCode.INVALID_ARGUMENT, "no")) is errors.InvalidTask
    assert type(status.to_domain(grpc.StatusCode.UNAVAILABLE, "gone")) is errors.NodeUnavailable
    assert type(status.to_domain(grpc.StatusCode.DATA_LOSS, "odd")) is errors.Internal


def test_a_foreign_exception_is_our_fault() -> None:
    assert status.grpc_status(ZeroDivisionError()) is grpc.StatusCode.INTERNAL
    assert status.http_status(ZeroDivisionError()) == 500


def test_a_new_kind_of_invalid_task_is_still_the_callers_fault() -> None:
    class TooManyCats(errors.InvalidTask):
        code = "too_many_cats"

    assert status.http_status(TooManyCats("fewer cats")) == 400
