"""Modelled nodes: public data sheets and model sizes, joined by the roofline. Every profile made here says `modelled:`.

Roofline (Williams, Waterman, Patterson 2009; for language models Pope et al., arXiv 2211.05102): an iteration reads all
weights once, which is bound by memory; every row adds its own arithmetic and a read of its keys and values; prefill is
bound by arithmetic. What data sheets do not say, the reachable share of the peak, is named below and is an assumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skyshore.nodemodel.clips import CLIP_MODEL, clip_speeds
from skyshore.nodemodel.detectors import VISION_SHAPES, VisionShape
from skyshore.nodemodel.document import ProfileError
from skyshore.nodemodel.quality import llm_quality, vision_quality
from skyshore.nodemodel.speed import LlmSpeed, NodeProfile, VideoSpeed

BANDWIDTH_SHARE = 0.7
"""Share of the peak memory bandwidth that decoding reaches (assumed)."""
PREFILL_SHARE = 0.5
"""Share of the peak arithmetic that prefill reaches (assumed)."""
VISION_SHARE = 0.15
"""Share of the peak arithmetic that a small convolutional detector reaches at batch 1 (assumed)."""
FRAME_OVERHEAD_S = 0.002
"""Decoding, scaling and post-processing of one frame (assumed)."""
BUSY_SHARE = 0.75
"""Share of the board power above idle that inference draws (assumed)."""
CACHED_TOKENS_PER_ROW = 512
"""Keys and values a row reads per step on average (assumed); makes the row's cost a constant."""
KV_MEMORY_SHARE = 0.9
"""Share of the memory left by the weights that holds keys and values (assumed; the default of common engines)."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device. `flops` is the dense 16-bit peak for GPUs and the 32-bit peak for CPUs."""

    name: str
    memory_bytes: float
    memory_bytes_per_s: float
    flops: float
    idle_watts: float
    board_watts: float
    source: str


@dataclass(frozen=True, slots=True)
class LlmShape:
    """One language model: what the roofline needs of it."""

    name: str
    parameters: float
    kv_bytes_per_token: int
    """Keys and values in 16 bits: 2 * layers * kv_heads * head_dim * 2."""
    context_tokens: int = 4096
    bytes_per_parameter: float = 2.0


HARDWARE = {
    device.name: device
    for device in (
        Hardware(
            "xeon-edge", 64e9, 94e9, 1.0e12, 35, 110, "data sheet, 4 channels DDR4-2933, 8 AVX-512 cores; idle assumed"
        ),
        Hardware("jetson-orin-nano", 8e9, 68e9, 10e12, 5, 15, "NVIDIA Jetson Orin Nano 8GB data sheet; idle assumed"),
        Hardware(
            "jetson-agx-orin", 64e9, 204.8e9, 42.5e12, 12, 60, "NVIDIA Jetson AGX Orin 64GB data sheet; idle assumed"
        ),
        Hardware("t4", 16e9, 320e9, 65e12, 10, 70, "NVIDIA T4 data sheet; idle assumed"),
        Hardware("l4", 24e9, 300e9, 121e12, 12, 72, "NVIDIA L4 data sheet; idle assumed"),
        Hardware("a100", 80e9, 2039e9, 312e12, 55, 400, "NVIDIA A100 80GB SXM data sheet; idle assumed"),
        Hardware("h100", 80e9, 3350e9, 989e12, 70, 700, "NVIDIA H100 SXM data sheet; idle assumed"),
    )
}

LLM_SHAPES = {
    shape.name: shape
    for shape in (
        LlmShape("smollm2-135m", 134.5e6, 23_040, context_tokens=8192),
        LlmShape("yi-6b", 6.06e9, 65_536),
        LlmShape("llama2-7b", 6.74e9, 524_288),
        LlmShape("llama3-8b", 8.03e9, 131_072, context_tokens=8192),
        LlmShape("yi-9b", 8.83e9, 98_304),
        LlmShape("llama-33b", 32.5e9, 1_597_440, context_tokens=2048),
        LlmShape("yi-34b", 34.4e9, 245_760),
    )
}

CLIP_SHAPES = {CLIP_MODEL: VisionShape(CLIP_MODEL, 8.0e6, 48)}
"""Classifiers of whole clips; per frame 16 patches through two pairs of blocks of 64 channels, embedding included."""

INSTANT = "instant"


def llm_speed(device: Hardware, shape: LlmShape, *, slots: int = 16) -> LlmSpeed:
    """Roofline of one language model on one device.

    Raises:
        ProfileError: the weights do not fit.
    """
    weights = shape.parameters * shape.bytes_per_parameter
    kv_tokens = int((device.memory_bytes - weights) * KV_MEMORY_SHARE / shape.kv_bytes_per_token)
    if kv_tokens < shape.context_tokens:
        raise ProfileError(
            f"{shape.name} needs {weights / 1e9:.0f} GB for weights and does not fit {device.name}; "
            f"choose a smaller model or a device with more than {device.memory_bytes / 1e9:.0f} GB"
        )
    bandwidth, flops = device.memory_bytes_per_s * BANDWIDTH_SHARE, device.flops * PREFILL_SHARE
    token_s = 2 * shape.parameters / flops
    return LlmSpeed(
        model=shape.name,
        source=f"modelled:roofline({device.source})",
        quality=llm_quality(shape.name) or 0.0,
        iteration_s=weights / bandwidth,
        prefill_token_s=token_s,
        row_s=token_s + CACHED_TOKENS_PER_ROW * shape.kv_bytes_per_token / bandwidth,
        slots=slots,
        kv_tokens=kv_tokens,
        context_tokens=shape.context_tokens,
        busy_watts=(device.board_watts - device.idle_watts) * BUSY_SHARE,
    )


def video_speed(device: Hardware, shape: VisionShape) -> VideoSpeed:
    """Arithmetic bound of one detector on one device, one frame at a time."""
    return VideoSpeed(
        model=shape.name,
        source=f"modelled:roofline({device.source})",
        quality=vision_quality(shape.name, 85) or 0.0,
        frame_s=FRAME_OVERHEAD_S + shape.flops_per_frame / (device.flops * VISION_SHARE),
        input_size=shape.input_size,
        bytes_per_frame=jpeg_bytes(shape.input_size, 85),
        busy_watts=(device.board_watts - device.idle_watts) * BUSY_SHARE,
    )


def jpeg_bytes(longer_side: int, encode_quality: int) -> float:
    """Rough bytes of a 4:3 JPEG (assumed: 1.6 bits a pixel at quality 85, 0.9 at 50); measured bytes replace it."""
    pixels = longer_side * longer_side * 0.75
    return pixels * (0.9 + 0.02 * (encode_quality - 50)) / 8


def modelled_profile(hardware: str, models: Sequence[str]) -> NodeProfile:
    """A node of a named device that runs the named models; `instant` answers everything in no time.

    Raises:
        ProfileError: an unknown device or model.
    """
    if hardware != INSTANT and hardware not in HARDWARE:
        raise ProfileError(f"no hardware '{hardware}'; known are {', '.join([INSTANT, *HARDWARE])}")
    llm: list[LlmSpeed] = []
    video: list[VideoSpeed] = []
    for name in models:
        # A precision after the colon changes a real engine, not the roofline of the 16-bit model.
        base = name.partition(":")[0]
        if base in LLM_SHAPES:
            llm.append(_instant_llm(name) if hardware == INSTANT else llm_speed(HARDWARE[hardware], LLM_SHAPES[base]))
        elif base in VISION_SHAPES:
            shape = VISION_SHAPES[base]
            video.append(_instant_video(shape) if hardware == INSTANT else video_speed(HARDWARE[hardware], shape))
        elif base in CLIP_SHAPES:
            shape = CLIP_SHAPES[base]
            bare = _instant_video(shape) if hardware == INSTANT else video_speed(HARDWARE[hardware], shape)
            video += clip_speeds(bare)
        else:
            known = ", ".join([*LLM_SHAPES, *VISION_SHAPES, *CLIP_SHAPES])
            raise ProfileError(f"no model '{name}' to emulate on {hardware}; known are {known}")
    idle = 0.0 if hardware == INSTANT else HARDWARE[hardware].idle_watts
    return NodeProfile(hardware, f"modelled:{hardware}", idle, tuple(llm), tuple(video))


def _instant_llm(model: str) -> LlmSpeed:
    return LlmSpeed(model, "modelled:instant", llm_quality(model) or 0.0, slots=4096, queue=4096, kv_tokens=2**40)


def _instant_video(shape: VisionShape) -> VideoSpeed:
    return VideoSpeed(
        shape.name,
        "modelled:instant",
        vision_quality(shape.name, 85) or 0.0,
        slots=4096,
        queue=4096,
        input_size=shape.input_size,
        bytes_per_frame=jpeg_bytes(shape.input_size, 85),
    )
