"""Blames a message for a failure: the first field of it that makes no sense.

Used after a method has failed, so the methods that succeed pay nothing for it.
"""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.message import DecodeError, Message

from skyshore.domain.errors import BadMessage, InvalidTask

_MAYBE_INPUT = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, DecodeError)
"""What code raises that was given values it does not expect."""
_LARGEST = 2**31


def blamed(error: Exception, request: object) -> InvalidTask | None:
    """The error of a caller whose `request` caused `error`; None if the request is sound."""
    if isinstance(error, DecodeError):
        return InvalidTask("the bytes sent are no message of this method")
    if not isinstance(error, (BadMessage, *_MAYBE_INPUT)) or not isinstance(request, Message):
        return None
    # An absent part may be right. Only the code that reads messages can tell that it is not.
    problem = _problem(request, "", count_absent=isinstance(error, BadMessage))
    return problem and InvalidTask(problem[1], param=problem[0])


def _problem(message: Any, path: str, *, count_absent: bool) -> tuple[str, str] | None:
    """Name and description of the first field that makes no sense."""
    absent = None
    for field in message.DESCRIPTOR.fields:
        name = f"{path}{field.name}"
        if field.is_repeated:
            values = list(getattr(message, field.name))
        elif field.message_type is not None and not message.HasField(field.name):
            if count_absent:
                absent = absent or (name, f"{name} is missing")
            continue
        else:
            values = [getattr(message, field.name)]
        for value in values:
            if isinstance(value, Message) and not field.message_type.GetOptions().map_entry:
                if found := _problem(value, f"{name}.", count_absent=count_absent):
                    return found
            elif word := _wrong(field, value):
                return name, f"{name} {word}"
    return absent


def _wrong(field: Any, value: object) -> str | None:
    if field.enum_type is not None:
        known = value in field.enum_type.values_by_number and value != 0
        return None if known or (field.has_presence and value == 0) else f"is missing or unknown ({value})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, not a number"
    if isinstance(value, int | float) and not 0 <= value < _LARGEST:
        return f"is out of range ({value})"
    return None
