"""What the linear and neural policies look at: one short vector per arm, the task and its surroundings in it.

Times are shares of what is left of the deadline, so that one weight serves tasks of every size. Written for whole
columns of `Arms` ([arms, WIDTH]) and for a single `ArmEstimate` ([WIDTH]) alike.
"""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import ArmEstimate, Arms, Context, Floats

WIDTH = 8
NAMES = ("one", "way", "queue", "service", "taken", "kv", "joules", "structure")
MOST_SHARE = 4.0
"""Shares of the deadline count up to this: whether a task would be five or fifty times late makes no difference."""


def arm_features(arms: Arms | ArmEstimate, context: Context) -> Floats:
    """1; transmission, queue and service over the time left; slots taken; KV in use; log joules; picture structure."""
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
