"""Random fleets and loads for training and judging a placement policy, each a `Scenario` run in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulator.build import build
from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.policies.protocol import Policy
from skyshore.policies.registry import POLICIES
from skyshore.scenario import Scenario
from skyshore.scenario.workload import make_schedule

EDGE_KINDS = (("l4", "yi-6b"), ("l4", "yi-9b"), ("t4", "yi-6b"), ("a100", "llama3-8b"), ("l4", "llama3-8b"))
CLOUD_KINDS = (("a100", "llama-33b"), ("h100", "yi-34b"), ("h100", "llama3-8b"), ("a100", "yi-9b"))


@dataclass(frozen=True, slots=True)
class Score:
    """Figures of one run."""

    requests: int
    met: int
    joules: float

    @property
    def attainment(self) -> float:
        """Share of requests answered in time."""
        return self.met / max(self.requests, 1)

    @property
    def joules_per_met(self) -> float:
        """Joules charged to tasks, idle shares included, per request answered in time."""
        return self.joules / max(self.met, 1)


def random_fleet(rng: np.random.Generator, policy: str, duration_s: float) -> Scenario:
    """Two to six edges, one or two clouds, from light load to overload, deadlines of 2 to 8 s."""
    edges, nodes, capacity = int(rng.integers(2, 7)), [], 0.0
    for number in range(edges):
        hardware, model = EDGE_KINDS[int(rng.integers(len(EDGE_KINDS)))]
        slowdown = float(rng.uniform(1, 2))
        nodes.append(_node(f"edge-{number}", "edge", hardware, model, slowdown))
        capacity += 1.2 / slowdown
    for number in range(int(rng.integers(1, 3))):
        hardware, model = CLOUD_KINDS[int(rng.integers(len(CLOUD_KINDS)))]
        nodes.append(_node(f"cloud-{number}", "cloud", hardware, model, 1.0))
        capacity += 4.0
    deadlines = np.sort(rng.uniform(2, 8, 3))
    rate, far_ms = capacity * float(rng.uniform(0.3, 2.0)), float(rng.uniform(10, 40))
    return Scenario.model_validate(
        {
            "name": "training",
            "seed": int(rng.integers(2**31)),
            "duration_s": duration_s,
            "policy": policy,
            "nodes": nodes,
            "links": [
                {"nodes": "edge", "up": {"rate_mbit_s": 100, "delay_ms": 2}, "joules_per_mb": 0.1},
                {
                    "nodes": "cloud",
                    "up": {"rate_mbit_s": 300, "delay_ms": far_ms},
                    "joules_per_mb": 0.5,
                },
            ],
            "classes": [{"name": f"c{i}", "deadline_s": float(d)} for i, d in enumerate(deadlines)],
            "workload": {
                "llm": [
                    {
                        "rate_per_s": rate / 3,
                        "prompt_tokens": float(rng.uniform(200, 900)),
                        "output_tokens": float(rng.uniform(15, 60)),
                        "service_class": f"c{i}",
                    }
                    for i in range(3)
                ]
            },
        }
    )


def run(scenario: Scenario) -> Score:
    """Run one scenario to its end."""
    outcomes: list[Outcome] = []
    build(scenario, Path()).run(make_schedule(scenario).arrivals, outcomes.append)
    met = sum(outcome.met_deadline for outcome in outcomes)
    answered = [outcome for outcome in outcomes if outcome.status is OutcomeStatus.OK]
    return Score(len(outcomes), met, sum(outcome.joules for outcome in answered))


@contextmanager
def registered(name: str, policy: Policy) -> Iterator[None]:
    """Let scenarios name a policy object that is being trained."""
    POLICIES[name] = lambda rng: policy
    try:
        yield
    finally:
        del POLICIES[name]


def _node(node_id: str, tier: str, hardware: str, model: str, slowdown: float) -> dict[str, object]:
    return {"id": node_id, "tier": tier, "profile": hardware, "models": [model], "slowdown": slowdown}
