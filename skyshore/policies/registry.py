"""The one table of policies. Adding one: its file, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from skyshore.domain.errors import NotFound
from skyshore.domain.node import Tier
from skyshore.policies.least_loaded import LeastLoaded
from skyshore.policies.one_tier import OneTier
from skyshore.policies.protocol import Policy
from skyshore.policies.random_choice import RandomChoice
from skyshore.policies.round_robin import RoundRobin

POLICIES: dict[str, Callable[..., Policy]] = {
    "random": RandomChoice,
    "round_robin": RoundRobin,
    "least_loaded": LeastLoaded,
    "edge_only": partial(OneTier, tier=Tier.EDGE),
    "cloud_only": partial(OneTier, tier=Tier.CLOUD),
}
"""Name → factory(rng, **settings). A dotted name is an ablation of the policy before the dot."""


def create_policy(
    name: str, rng: np.random.Generator, settings: Mapping[str, float | str | bool] | None = None
) -> Policy:
    """Build a policy by name.

    Raises:
        NotFound: no policy of that name.
    """
    factory = POLICIES.get(name)
    if factory is None:
        raise NotFound(f"no policy '{name}'; known are {', '.join(sorted(POLICIES))}", param="policy")
    return factory(rng, **(settings or {}))
