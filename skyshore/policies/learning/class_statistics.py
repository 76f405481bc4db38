"""Snapshots of the discounted statistics per service class and arm (`skyshore.rules.statistics`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from skyshore.policies.learning.snapshot import pack
from skyshore.rules.statistics import Statistics


def pack_statistics(
    layout: str, statistics: Statistics, kind: int, groups: Mapping[str, int], arms: Mapping[str, int]
) -> bytes:
    """Counts and sums of one kind of task as `pack` writes them. `groups` and `arms` give the number of each name."""
    classes, where = list(groups.values()), np.array(list(arms.values()), dtype=np.intp)
    return pack(
        layout,
        {
            "arms": np.array(list(arms), dtype=np.str_),
            "classes": np.array(list(groups), dtype=np.str_),
            "count": np.array(statistics.counts[kind])[classes][:, where],
            "sum": np.array(statistics.sums[kind])[classes][:, where],
        },
    )


def fill_statistics(
    statistics: Statistics,
    kind: int,
    part: Mapping[str, NDArray[np.generic]],
    group_of: Callable[[str], int],
    arm_of: Callable[[str], int],
) -> None:
    """Write what `pack_statistics` packed into blank statistics in lists.

    `group_of` and `arm_of` give the number of a name, and make room for it in `statistics`.
    """
    slots = [arm_of(name) for name in part["arms"].tolist()]
    for row, name in enumerate(part["classes"].tolist()):
        group = group_of(name)
        counts, sums = statistics.counts[kind][group], statistics.sums[kind][group]
        for column, slot in enumerate(slots):
            counts[slot], sums[slot] = float(part["count"][row, column]), float(part["sum"][row, column])
        statistics.totals[kind][group] = float(np.array(counts).sum())
