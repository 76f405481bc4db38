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
    allowed_s = max(context.remaining_s, 1e-3)
    columns = (
        1.0,
        np.minimum(arms.transmission_s / allowed_s, MOST_SHARE),
        np.minimum(arms.queue_s / allowed_s, MOST_SHARE),
        np.minimum(arms.service_s / allowed_s, MOST_SHARE),
        np.minimum(arms.load / arms.slots, 1.0),
        arms.kv_used,
        np.log1p(arms.joules) / 5.0,
        10.0 * sum(context.profile.complexity[1:8]),
    )
    stacked: Floats = np.stack(np.broadcast_arrays(*columns), axis=-1)
    return stacked
