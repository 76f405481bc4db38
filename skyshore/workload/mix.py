"""Turns arrival times and lengths into LLM requests."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.workload.arrival import Arrival
from skyshore.workload.arrival_processes import Times
from skyshore.workload.lengths import lognormal_tokens


@dataclass(frozen=True, slots=True)
class LlmDemand:
    """Lengths, deadline and quality of the requests of one source."""

    prompt_tokens: float = 64.0
    output_tokens: float = 32.0
    """Means; both lengths are log-normal and independent, as in the published traces."""
    length_cv: float = 0.5
    max_prompt_tokens: int = 4096
    max_output_tokens: int = 1024
    service_class: str = "interactive"
    deadline_s: float = 20.0
    deadline_range_s: tuple[float, float] | None = None
    """Instead of `deadline_s`: each request draws its deadline uniformly from this range."""
    min_quality: float = 0.0
    origin: str = ""


def llm_arrivals(times_s: Times, demand: LlmDemand, rng: np.random.Generator) -> list[Arrival]:
    """One request per time; each is its own session."""
    count, cv = len(times_s), demand.length_cv
    prompts = lognormal_tokens(demand.prompt_tokens, cv, count, rng, max_tokens=demand.max_prompt_tokens)
    outputs = lognormal_tokens(demand.output_tokens, cv, count, rng, max_tokens=demand.max_output_tokens)
    deadlines_s = np.full(count, demand.deadline_s)
    if demand.deadline_range_s is not None:
        deadlines_s = rng.uniform(*demand.deadline_range_s, count)
    return [
        Arrival(
            t_intended_s=float(time_s),
            request_id="",
            kind=TaskKind.LLM,
            service_class=demand.service_class,
            origin=demand.origin,
            prompt_tokens=int(prompt),
            output_tokens=int(output),
            deadline_s=float(deadline_s),
            min_quality=demand.min_quality,
        )
        for time_s, prompt, output, deadline_s in zip(times_s, prompts, outputs, deadlines_s, strict=True)
    ]


def with_demand(arrivals: list[Arrival], demand: LlmDemand) -> list[Arrival]:
    """Recorded arrivals with the class, deadline, quality and origin of `demand`."""
    return [
        replace(
            arrival,
            service_class=demand.service_class,
            deadline_s=demand.deadline_s,
            min_quality=demand.min_quality,
            origin=demand.origin,
        )
        for arrival in arrivals
    ]
