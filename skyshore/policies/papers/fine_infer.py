"""FineInfer-like: the cloud only; every request is deferred for a bounded time, so that it joins a fuller batch.

Ports: FineInfer's deferred continuous batching (EuroMLSys 2024, code `llm-db/FineInfer`; digest 3.3), as PerLLM uses it
as a baseline. There is one tier, and requests join at iteration boundaries. Each is deferred for at most a bound. Here
an arrival waits until its slot of `slot_s` seconds ends. Then the arrivals of the slot go to the cloud together,
nearest deadline first, and the engine batches them continuously.

Our choices: one bound for all requests, half a second by default; FineInfer's bound is per request (its offload bench
uses 60 s). Of several cloud arms the policy takes the fullest that has a free slot, because tasks of a batch share its
joules; if no arm has a free slot, it takes the least loaded one. Left out: LoRA fine-tuning, for which FineInfer uses
the waiting time, and its test d_r + t_f − t_i against the bound. So this port has the cost of deferral without its
benefit: it is a lower bound on what FineInfer achieves.

Where the cloud alone is too small, it is overloaded, and deferral is not the reason. In `scenarios/papers/perllm.toml`
the prompts of three requests per second (load 0.5) take seven eighths of the cloud's time and their answers a fifth.
Service is first come, first served, so nearly all requests end at their deadlines. `cloud_only`, which defers nothing,
meets as few (6 % at load 0.5, none at load 1). So a ratio of throughputs to this policy shows how small the cloud is,
not how good the other policy is.
"""

from __future__ import annotations

import numpy as np

from skyshore.policies.protocol import REFUSED, Arms, Context, Decision, Policy


class FineInfer(Policy):
    """Cloud only, in slots of `slot_s` seconds."""

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
