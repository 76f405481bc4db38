"""What both profile commands read: lists of numbers, and the node profile that they extend."""

from __future__ import annotations

import json
from pathlib import Path

from skyshore.domain.errors import InvalidTask
from skyshore.nodemodel.document import profile_from_document
from skyshore.nodemodel.speed import NodeProfile


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers of `--option 1,2,4`. Raises InvalidTask for text that is not whole numbers."""
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise InvalidTask(f"--{option} takes whole numbers, separated by commas, not '{text}'", param=option) from None


def positive_numbers(option: str, text: str) -> tuple[int, ...]:
    """As `whole_numbers`, but at least one number, and each at least 1. Raises InvalidTask."""
    numbers = whole_numbers(option, text)
    if not numbers or min(numbers) < 1:
        raise InvalidTask(f"--{option} takes whole numbers from 1, separated by commas, not '{text}'", param=option)
    return numbers


def existing_profile(file: Path) -> NodeProfile | None:
    """The node profile in a file; None if there is no such file. Raises InvalidTask for a file of another kind."""
    if not file.is_file():
        return None
    try:
        return profile_from_document(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InvalidTask(f"{file} is not a node profile ({error}); name another file", param="out") from error
