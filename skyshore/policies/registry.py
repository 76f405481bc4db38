"""The one table of policies. Adding one: its file, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from skyshore.domain.errors import NotFound
from skyshore.domain.node import Tier
from skyshore.policies.baselines.bad import Busiest, Slowest
from skyshore.policies.baselines.greedy import GreedyEnergy, ShortestExpectedDelay
from skyshore.policies.baselines.least_loaded import LeastLoaded
from skyshore.policies.baselines.one_tier import OneTier
from skyshore.policies.baselines.power_of_two import PowerOfTwo
from skyshore.policies.baselines.random_choice import RandomChoice
from skyshore.policies.baselines.round_robin import RoundRobin
from skyshore.policies.own.skyshore import Skyshore
from skyshore.policies.papers.a2 import A2
from skyshore.policies.papers.agod import Agod
from skyshore.policies.papers.cdio import Cdio
from skyshore.policies.papers.cs_ucb import CsUcb
from skyshore.policies.papers.dds import Dds
from skyshore.policies.papers.fine_infer import FineInfer
from skyshore.policies.papers.jcab import Jcab
from skyshore.policies.papers.linucb import LinUcb
from skyshore.policies.papers.primal_dual import PrimalDual
from skyshore.policies.papers.rewardless_guidance import RewardlessGuidance
from skyshore.policies.protocol import Policy

POLICIES: dict[str, Callable[..., Policy]] = {
    "random": RandomChoice,
    "round_robin": RoundRobin,
    "least_loaded": LeastLoaded,
    "edge_only": partial(OneTier, tier=Tier.EDGE),
    "cloud_only": partial(OneTier, tier=Tier.CLOUD),
    "power_of_two": PowerOfTwo,
    "shortest_delay": ShortestExpectedDelay,
    "greedy_energy": GreedyEnergy,
    "busiest": Busiest,
    "slowest": Slowest,
    "skyshore": Skyshore,
    "skyshore.serve_all": partial(Skyshore, floor=0.0, ceiling=0.0),
    "cdio": Cdio,
    "cdio.no_preference": partial(Cdio, preference=False),
    "cdio.no_lstm": partial(Cdio, lstm=False),
    "cdio.no_complexity": partial(Cdio, complexity=False),
    "cdio.no_bandit": partial(Cdio, bandit=False),
    "cs_ucb": CsUcb,
    "cs_ucb.filter_only": partial(CsUcb, explore=False),
    "cs_ucb.ucb_only": partial(CsUcb, constrain=False, theta=0.0),
    "cs_ucb.penalty": partial(CsUcb, constrain=False),
    "cs_ucb.reject": partial(CsUcb, infeasible="reject"),
    "cs_ucb.slotted": partial(CsUcb, slot_s=0.05),
    "fine_infer": FineInfer,
    "agod": Agod,
    "rewardless_guidance": RewardlessGuidance,
    "jcab": Jcab,
    "a2": A2,
    "dds": Dds,
    "linucb": LinUcb,
    "linucb.filtered": partial(LinUcb, constrain=True),
    "primal_dual": PrimalDual,
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
