"""The record beside every cached entry: its source, its converter, and the checksums of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from skyshore.catalogue.entry import Entry
from skyshore.catalogue.errors import CorruptFile, NotFetched

FILE_NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content of `manifest.json`. Checksums are SHA-256 in hex, paths are relative to the entry's folder."""

    name: str
    kind: str
    licence: str
    source: str
    """The package, as its client names it."""
    source_files: Mapping[str, str]
    """Path → checksum of what came out of the package."""
    files: Mapping[str, str]
    """Path → checksum of what was made here."""
    converter_version: int
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the engine must know: family, input, labels."""

    def write(self, folder: Path) -> None:
        """Write it beside its files; an older one is replaced atomically."""
        draft = folder / f".{FILE_NAME}"
        draft.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
        draft.replace(folder / FILE_NAME)

    def is_current(self, entry: Entry, converter_version: int) -> bool:
        """Whether a build now would use the same files and the same converter."""
        pinned = {pin.kept_as: pin.sha256 for pin in entry.source.files.values()}
        return dict(self.source_files) == pinned and self.converter_version == converter_version

    def check(self, folder: Path, entry: Entry) -> None:
        """Hash every file again.

        Raises:
            CorruptFile: one is missing or changed, or is not the one the table pins.
        """
        pinned = {pin.kept_as: pin.sha256 for pin in entry.source.files.values()}
        for path, expected in {**self.source_files, **self.files, **pinned}.items():
            file = folder / path
            if not file.is_file() or sha256(file) != expected:
                state = "changed" if file.is_file() else "is missing"
                raise CorruptFile(f"{file} {state}; remove {folder} and run `skyshore models fetch {self.name}`")


def read_manifest(folder: Path) -> Manifest:
    """Read an entry's record.

    Raises:
        NotFetched: there is none.
        CorruptFile: it cannot be parsed.
    """
    path = folder / FILE_NAME
    try:
        return Manifest(**json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise NotFetched(f"{folder.name} is not in the cache; run `skyshore models fetch {folder.name}`") from error
    except (ValueError, TypeError) as error:
        raise CorruptFile(f"{path} cannot be read ({error}); remove {folder} and fetch it again") from error


def sha256(path: Path) -> str:
    """Checksum of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
