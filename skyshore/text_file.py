"""Text files that a user named."""

from __future__ import annotations

from pathlib import Path

from skyshore.domain.errors import NotFound


def read_text(path: Path) -> str:
    """The text of a file. Raises NotFound, in words, for one that is not there, cannot be read, or is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise NotFound(f"cannot read {path}: it is not a text file") from error
