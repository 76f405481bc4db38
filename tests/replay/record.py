"""Writes the golden logs: `python -m tests.replay.record [policy ...]`. Only for a change that is meant."""

import sys
from pathlib import Path

from skyshore.domain.node import Tier
from skyshore.policies.registry import POLICIES
from skyshore.scheduling.core import CoreSettings
from skyshore.scheduling.log import EventEncoder, encode_dispatch, encode_header
from tests.fakes.queue_model import QueueArrival, QueueModel, TrueNode, llm_arrivals
from tests.fakes.small_fleet import VIDEO_PROFILE, llm_arm, node, video_arm, video_task

GOLDEN = Path(__file__).parent / "golden"


def fleet() -> list[TrueNode]:
    edges = [
        TrueNode(
            node(
                name,
                llm_arm(name, prefill_tokens_per_s=1500.0 * speed, decode_tokens_per_s=150.0 * speed),
                video_arm(name),
                video_arm(name, arm_id=f"{name}/nanodet@208", quality=0.5, frame_s=0.01, bytes_per_frame=6000.0),
            ),
            slowness=1.2,
            jitter=0.2,
        )
        for name, speed in (("edge-a", 1.0), ("edge-b", 0.6))
    ]
    cloud_arms = (
        llm_arm(
            "cloud", slots=8, quality=0.9, prefill_tokens_per_s=9000.0, decode_tokens_per_s=500.0, busy_watts=250.0
        ),
        video_arm("cloud", slots=8, quality=0.9, frame_s=0.005, busy_watts=250.0),
    )
    return [*edges, TrueNode(node("cloud", *cloud_arms, tier=Tier.CLOUD), capacity=32, jitter=0.2)]


def arrivals() -> list[QueueArrival]:
    segments = [QueueArrival(0.3 + 0.7 * i, video_task(f"v{i}", deadline_s=2.0), VIDEO_PROFILE) for i in range(15)]
    return sorted([*llm_arrivals(3.0, 40, seed=5), *segments], key=lambda arrival: arrival.at_s)


def record(policy: str) -> tuple[list[str], list[str]]:
    """Event log and decisions of one policy."""
    settings = CoreSettings(policy=policy, seed=11)
    run = QueueModel(fleet(), settings, seed=3).play(arrivals())
    log = [encode_header(settings), *map(EventEncoder().encode, run.events)]
    return log, [encode_dispatch(action) for action in run.dispatched]


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in sys.argv[1:] or POLICIES:
        log, decisions = record(name)
        (GOLDEN / f"{name}.events.jsonl").write_text("\n".join(log) + "\n", encoding="utf-8")
        (GOLDEN / f"{name}.decisions.jsonl").write_text("\n".join(decisions) + "\n", encoding="utf-8")
