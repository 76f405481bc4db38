"""Looks at the catalogue's clips once, so that virtual time knows how complex their pictures are."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from skyshore.adapters.video_source import frames, probe
from skyshore.catalogue.store import ready
from skyshore.profiling.complexity import complexity_vector

CLIPS = {"bikes": 5, "vtest": 10}
"""Clip → frames between two looks."""


def clip_file(clip: str) -> Path:
    """The video file of a catalogue clip. Raises NotFetched when it is not in the cache."""
    return next(file for file in sorted(ready(clip).iterdir()) if file.suffix in {".avi", ".mp4"})


def write_clip_table(out: Path) -> None:
    """Write what `skyshore.workload.clip_complexity` reads. Raises NotFetched when a clip is not in the cache."""
    table = {}
    for clip, stride in CLIPS.items():
        path = clip_file(clip)
        greys = (cv2.cvtColor(frame.picture, cv2.COLOR_BGR2GRAY) for frame in frames(path, stride=stride))
        vectors = [complexity_vector(np.asarray(grey, np.uint8)) for grey in greys]
        rounded = [[float(f"{value:.5g}") for value in vector] for vector in vectors]
        table[clip] = {"frames": probe(path).frame_count, "stride": stride, "vectors": rounded}
    out.write_text(json.dumps(table) + "\n", encoding="utf-8")
