"""Complexity of the clips of the catalogue, for simulations; a live system computes it in the profiler.

`training/clip_complexity.py` measured the table on the clips.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

TABLE = "clip_complexity.json"


def clip_complexity(clip: str, frame: int) -> tuple[float, ...]:
    """Complexity vector of a frame of a clip, which is repeated from the start at its end; empty if not measured."""
    known = _table().get(clip)
    if known is None:
        return ()
    vectors = known["vectors"]
    return tuple(vectors[min(frame % known["frames"] // known["stride"], len(vectors) - 1)])


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(files("skyshore.workload").joinpath(TABLE).read_text(encoding="utf-8"))
    return table
