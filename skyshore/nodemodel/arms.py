"""From a node profile to the arms a node offers: one per model and encoding."""

from __future__ import annotations

from dataclasses import replace

from skyshore.domain.node import Arm
from skyshore.domain.task import TaskKind
from skyshore.domain.video import Codec
from skyshore.nodemodel.hardware import jpeg_bytes
from skyshore.nodemodel.quality import ENCODE_FACTOR
from skyshore.nodemodel.speed import LlmSpeed, VideoSpeed

INSTANT_PER_S = 1e9
"""Speed an arm shows for an engine that takes no time; 0 would read as unknown."""


def llm_arm(node_id: str, speed: LlmSpeed) -> Arm:
    """The one arm of a language model. `model` drops the precision, so that a caller may insist on either."""
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


def video_arms(node_id: str, speed: VideoSpeed) -> list[Arm]:
    """One arm per encoding quality of `ENCODE_FACTOR` for JPEG, a single one for H.264."""
    arm = Arm(
        arm_id=_video_arm_id(node_id, speed, speed.encode_quality),
        node_id=node_id,
        kind=TaskKind.VIDEO_DETECT,
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
    if speed.codec is not Codec.JPEG:
        return [arm]
    reference = ENCODE_FACTOR.get(speed.encode_quality, 1.0)
    harsher = [
        replace(
            arm,
            arm_id=_video_arm_id(node_id, speed, encode_quality),
            quality=round(speed.quality * factor / reference, 3),
            encode_quality=encode_quality,
            bytes_per_frame=speed.bytes_per_frame
            * jpeg_bytes(speed.input_size or 640, encode_quality)
            / jpeg_bytes(speed.input_size or 640, speed.encode_quality),
        )
        for encode_quality, factor in ENCODE_FACTOR.items()
        if encode_quality < speed.encode_quality
    ]
    return [arm, *harsher]


def _video_arm_id(node_id: str, speed: VideoSpeed, encode_quality: int) -> str:
    size = str(speed.input_size) if speed.input_size else "source"
    return f"{node_id}/{speed.model}@{size}/{speed.codec}{encode_quality}"
