"""How complex the pictures of the catalogue's clips are: what the profiler would see live, for virtual time.

The table is measured, by `training/clip_complexity.py`, on the clips themselves.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

TABLE = "clip_complexity.json"


def clip_complexity(clip: str, frame: int) -> tuple[float, ...]:
    """Complexity vector of a frame of a clip, which loops; empty for a clip that nobody looked at."""
    known = _table().get(clip)
    if known is None:
        return ()
    vectors = known["vectors"]
    return tuple(vectors[min(frame % known["frames"] // known["stride"], len(vectors) - 1)])


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(files("skyshore.workload").joinpath(TABLE).read_text(encoding="utf-8"))
    return table
