"""All files that a scenario reads, as bytes: a bundle holds them, and another machine can run them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from skyshore.scenario import InvalidScenario, Scenario, read_scenario
from skyshore.text_file import read_text

LONGEST_NAME = 255


@dataclass(frozen=True)
class Inputs:
    """A scenario file and the files it names, by path relative to the nearest folder that holds them all."""

    scenario: str
    """Path of the scenario file."""
    files: Mapping[str, bytes]

    @classmethod
    def read(cls, path: Path) -> Inputs:
        """Read them.

        Raises:
            NotFound: the scenario cannot be read.
            InvalidScenario: it cannot be used.
        """
        path = path.resolve()
        text = read_text(path)
        named = {path, *_named_files(read_scenario(text, str(path)), path.parent)}
        root = Path(os.path.commonpath([each.parent for each in named]))
        files = {each.relative_to(root).as_posix(): each.read_bytes() for each in sorted(named)}
        return cls(path.relative_to(root).as_posix(), files)

    @classmethod
    def load(cls, folder: Path, scenario: str) -> Inputs:
        """Read back what `write` wrote."""
        found = sorted(each for each in folder.rglob("*") if each.is_file())
        return cls(scenario, {each.relative_to(folder).as_posix(): each.read_bytes() for each in found})

    @cached_property
    def sha256(self) -> str:
        """Hex digest over names and content."""
        digest = hashlib.sha256(self.scenario.encode())
        for name, content in sorted(self.files.items()):
            digest.update(f"\n{name} {hashlib.sha256(content).hexdigest()}".encode())
        return digest.hexdigest()

    @property
    def text(self) -> str:
        """The scenario file."""
        return self.files[self.scenario].decode()

    def parse(self) -> Scenario:
        """The scenario as a value. Raises InvalidScenario."""
        return read_scenario(self.text, self.scenario)

    def write(self, folder: Path) -> Path:
        """Write all of them below `folder`; returns the path of the scenario."""
        for name, content in self.files.items():
            path = folder / PurePosixPath(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder / self.scenario


def _named_files(scenario: Scenario, folder: Path) -> Iterator[Path]:
    """Any text of a scenario may be the name of a file: a trace, a profile, a schedule."""
    for text in _texts(scenario.model_dump(mode="json", exclude={"name", "about"})):
        if not text or len(text) > LONGEST_NAME or "\n" in text or not (folder / text).is_file():
            continue
        if Path(text).is_absolute():
            raise InvalidScenario(f"'{text}' is an absolute path; name files relative to the scenario file")
        yield (folder / text).resolve()


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
