"""FineInfer-like: the cloud alone, every request deferred within a bound so that it joins a fuller batch.

Ports: FineInfer's deferred continuous batching (EuroMLSys 2024, code `llm-db/FineInfer`; digest 3.3) as PerLLM uses it
as a baseline: one tier, no choice between tiers, requests join at iteration boundaries, each held back for no longer
than a bound. Here an arrival waits until its slot of `slot_s` ends and the slot's arrivals go to the cloud together,
nearest deadline first; the engine's continuous batching does the rest.

Our choices: the bound is one for all, half a second by default, where FineInfer's is per request (its offload bench
uses 60 s); of several cloud arms the fullest that has a free slot is taken, for a fuller batch shares its joules, and
the least loaded one when none has. Left out: LoRA fine-tuning, which is what FineInfer fills the waiting time with, and
with it the test d_r + t_f − t_i against the bound: nothing here needs the time that deferral frees. So this port shows
the cost of deferral without its use, and is a lower bound on FineInfer's worth.

Where the cloud alone is too small it drowns, and not because of the deferral: in `scenarios/papers/perllm.toml` the
prompts of three requests a second (load 0.5) take seven eighths of the cloud's time and their answers a fifth, so first
come, first served, nearly all end at their deadlines. `cloud_only`, which defers nothing, meets as few (6 % at load
0.5, none at load 1). A ratio of throughputs against it says how small the cloud is, not how good a policy.
"""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import REFUSED, Arms, Context, Decision, Policy


class FineInfer(Policy):
    """Cloud only, slot by slot."""

    def __init__(self, rng: np.random.Generator, *, slot_s: float = 0.5) -> None:
        """The generator is not needed: exact ties go to the first row. `slot_s` bounds the deferral."""
        self.slot_s = slot_s

    def select(self, context: Context, arms: Arms) -> Decision:
        """Fullest cloud arm with a free slot, else the least loaded; edge arms score minus infinity."""
        if not arms.is_cloud.any():
            return Decision(REFUSED, reason="no cloud arm has room, and this policy uses no other", transient=True)
        taken = arms.load / arms.slots
        scores = np.where(arms.is_cloud, np.where(taken < 1.0, taken, -taken), -np.inf)
        return Decision(int(scores.argmax()), scores=scores)
