"""Prepares a run from a schedule and an address."""

from __future__ import annotations

from loadgen.clips import ClipFinder, cut_clips
from loadgen.gateway_client import GatewayClient
from loadgen.http1 import HttpClient
from loadgen.pacing import LoadRun
from loadgen.payloads import ClipCut, payloads
from skyshore.domain.task import TaskKind
from skyshore.workload.prompts import TokenCounter
from skyshore.workload.schedule import Schedule


def prepare(
    schedule: Schedule,
    url: str,
    find_clip: ClipFinder,
    *,
    model: str = "",
    count_tokens: TokenCounter | None = None,
    letters_per_token: int = 0,
) -> LoadRun:
    """Make every payload now, so that the run only sends and receives.

    Raises:
        NotFound, InvalidMedia: a clip that the schedule names.
        ValueError: no HTTP address.
    """
    video = (arrival for arrival in schedule.arrivals if arrival.kind is not TaskKind.LLM)
    cuts = cut_clips((ClipCut.of(arrival) for arrival in video), find_clip)
    ready = payloads(
        schedule.arrivals,
        cuts,
        seed=schedule.seed,
        model=model,
        count_tokens=count_tokens,
        letters_per_token=letters_per_token,
    )
    return LoadRun(schedule.arrivals, GatewayClient(HttpClient(url), ready))
