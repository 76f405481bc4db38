"""The Pareto frontier of configurations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_frontier(costs: ArrayLike) -> NDArray[np.bool_]:
    """Mark the rows of `costs` [n, k] that no other row dominates; every column is better when smaller.

    A row dominates another if it is worse in no column and better in at least one; equal rows do not dominate each
    other.
    """
    table = np.asarray(costs, np.float64)
    no_worse = (table[:, None] <= table[None]).all(axis=2)
    better = (table[:, None] < table[None]).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0), np.bool_)
