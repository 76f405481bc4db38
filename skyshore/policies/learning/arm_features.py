"""Features of the linear and neural policies: one short vector per arm, which describes arm, task and load.

Times are shares of the remaining time, so that one weight fits tasks of every size. The function takes all columns of
`Arms` (result [arms, WIDTH]) or one `ArmEstimate` (result [WIDTH]).
"""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import ArmEstimate, Arms, Context, Floats

WIDTH = 8
NAMES = ("one", "transmission", "queue", "service", "taken", "kv", "joules", "structure")
MOST_SHARE = 4.0
"""Largest share of the remaining time that counts: five times too late is as bad as fifty times."""


def arm_features(arms: Arms | ArmEstimate, context: Context) -> Floats:
    """The features in the order of `NAMES`."""
    times_s = np.array((arms.transmission_s, arms.queue_s, arms.service_s))
    features: Floats = np.empty((*times_s.shape[1:], WIDTH))
    columns = features.T  # each with one entry per arm, or a number
    columns[0] = 1.0
    columns[1:4] = np.minimum(times_s / max(context.remaining_s, 1e-3), MOST_SHARE)
    columns[4] = np.minimum(arms.load / arms.slots, 1.0)
    columns[5] = arms.kv_used
    columns[6] = np.log1p(arms.joules) / 5.0
    columns[7] = 10.0 * sum(context.profile.complexity[1:8])
    return features
