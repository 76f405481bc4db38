"""Builds what an engine opens from verified source files; one builder per kind of entry.

The converters are imported late on purpose: listing the catalogue must not load onnx, which only the `models` extra
installs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from skyshore.catalogue.detectors import DETECTORS
from skyshore.catalogue.entry import Entry, Kind
from skyshore.catalogue.errors import CatalogueError

CONVERTER_VERSIONS: Mapping[Kind, int] = {Kind.DETECTOR: 2, Kind.LLM: 1, Kind.CLIP: 1}
"""Increase a version when its builder's output changes; cached entries of that kind are then rebuilt."""

LLM_PRECISIONS = ("int4", "fp32")
"""Built with the fetch; others on demand."""

Made = tuple[dict[str, object], list[str]]
"""What the engine must know, and the paths of the files made."""


def converter_version(kind: Kind) -> int:
    """Version of the builder of that kind."""
    return CONVERTER_VERSIONS[kind]


def make(entry: Entry, folder: Path) -> Made:
    """Build an entry inside `folder`, where its sources already lie.

    Raises:
        UnsupportedGraph: the source is not what the converter was written for.
        CatalogueError: the packages that convert are not installed.
    """
    return _MAKERS[entry.kind](entry, folder)


def build_llm(folder: Path, precision: str) -> Path:
    """Add one precision of a language model to its folder; returns the ONNX file."""
    try:
        from skyshore.catalogue.llama.build import build  # noqa: PLC0415 - see the module's docstring
    except ImportError as error:
        raise _not_installed(error) from error
    return build(folder / "model.gguf", folder, precision)


def _llm(entry: Entry, folder: Path) -> Made:
    before = set(folder.rglob("*"))
    for precision in LLM_PRECISIONS:
        build_llm(folder, precision)
    made = sorted(set(folder.rglob("*")) - before)
    about: dict[str, object] = {"precisions": list(LLM_PRECISIONS)}
    return about, [str(path.relative_to(folder)) for path in made if path.is_file()]


def _detector(entry: Entry, folder: Path) -> Made:
    try:
        from skyshore.catalogue.tfjs.detector import build_detector  # noqa: PLC0415 - see the module's docstring
    except ImportError as error:
        raise _not_installed(error) from error
    return build_detector(DETECTORS[entry.name], folder)


def _clip(entry: Entry, folder: Path) -> Made:
    (pin,) = entry.source.files.values()
    return {"clip": pin.kept_as}, []


def _not_installed(error: ImportError) -> CatalogueError:
    return CatalogueError(f"conversion needs the `models` extra ({error}): run `pip install -e '.[models]'`")


_MAKERS: Mapping[Kind, Callable[[Entry, Path], Made]] = {
    Kind.DETECTOR: _detector,
    Kind.LLM: _llm,
    Kind.CLIP: _clip,
}
