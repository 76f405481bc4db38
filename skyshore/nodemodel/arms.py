"""From a node profile to the arms a node offers: one per model, input size, encoding and stride."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from skyshore.domain.node import Arm
from skyshore.domain.task import TaskKind
from skyshore.domain.video import Codec
from skyshore.nodemodel.document import ProfileError
from skyshore.nodemodel.hardware import jpeg_bytes
from skyshore.nodemodel.quality import ENCODE_FACTOR
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed

INSTANT_PER_S = 1e9
"""Stated speed of an engine that takes no time; 0 would mean unknown."""


def llm_arm(node_id: str, speed: LlmSpeed) -> Arm:
    """The one arm of a language model. `model` drops the precision, so that a caller may name either form."""
    return Arm(
        arm_id=f"{node_id}/{speed.model}",
        node_id=node_id,
        kind=TaskKind.LLM,
        model=speed.model.partition(":")[0],
        quality=speed.quality,
        slots=speed.slots,
        prefill_tokens_per_s=speed.prefill_tokens_per_s or INSTANT_PER_S,
        decode_tokens_per_s=speed.decode_tokens_per_s or INSTANT_PER_S,
        context_tokens=speed.context_tokens,
        busy_watts=speed.busy_watts,
    )


def video_arms(node_id: str, speeds: Sequence[VideoSpeed]) -> list[Arm]:
    """One arm for every measured configuration of a model.

    A model with a single entry, for JPEG, also gets the lower JPEG qualities of `ENCODE_FACTOR`, with assumed bytes and
    quality. This is the case of a node without a measured profile.

    Raises:
        ProfileError: two entries describe the same arm.
    """
    entries = Counter(speed.model for speed in speeds)
    arms: dict[str, Arm] = {}
    for speed in speeds:
        arm = _video_arm(node_id, speed)
        harsher = _harsher(arm, speed) if entries[speed.model] == 1 and speed.codec is Codec.JPEG else []
        for offered in (arm, *harsher):
            if offered.arm_id in arms:
                raise ProfileError(f"the profile holds {offered.arm_id.partition('/')[2]} twice; leave one of them out")
            arms[offered.arm_id] = offered
    return list(arms.values())


def _video_arm(node_id: str, speed: VideoSpeed) -> Arm:
    size = str(speed.input_size) if speed.input_size else "source"
    stride = f"/every{speed.frame_stride}" if speed.frame_stride > 1 else ""
    return Arm(
        arm_id=f"{node_id}/{speed.model}@{size}/{speed.codec}{speed.encode_quality}{stride}",
        node_id=node_id,
        kind=speed.kind,
        model=speed.model,
        quality=speed.quality,
        slots=speed.slots,
        frame_s=speed.frame_s or 1 / INSTANT_PER_S,
        input_size=speed.input_size,
        codec=speed.codec,
        encode_quality=speed.encode_quality,
        frame_stride=speed.frame_stride,
        bytes_per_frame=speed.bytes_per_frame,
        busy_watts=speed.busy_watts,
    )


def _harsher(arm: Arm, speed: VideoSpeed) -> list[Arm]:
    reference = ENCODE_FACTOR.get(speed.encode_quality, 1.0)
    size = speed.input_size or 640
    return [
        replace(
            _video_arm(arm.node_id, replace(speed, encode_quality=encode_quality)),
            quality=round(speed.quality * factor / reference, 3),
            bytes_per_frame=speed.bytes_per_frame
            * jpeg_bytes(size, encode_quality)
            / jpeg_bytes(size, speed.encode_quality),
        )
        for encode_quality, factor in ENCODE_FACTOR.items()
        if encode_quality < speed.encode_quality
    ]
