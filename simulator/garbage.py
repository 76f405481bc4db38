"""How often Python looks for garbage while a simulation runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

RARELY = (50_000, 20, 100)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Leave alone what was there before, and look through the rest seldom.

    What a request leaves behind is freed by reference counts, so a search finds next to nothing, however often it is
    made; at the usual pace it takes a tenth of a run or more.
    """
    pace = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*pace)
        gc.unfreeze()
