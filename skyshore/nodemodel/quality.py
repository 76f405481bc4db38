"""The only table of answer qualities: each model relative to the best one in the table, with the source.

Language models: published five-shot MMLU over 76.3, the score of Yi-34B. A suffix `:precision` multiplies by the share
of positions at which that precision's likeliest token equals the 32-bit model's (teacher-forced, measured in this
project). Detectors: published COCO average precision over 37.4, that of yolov5s. An encode quality below the reference
multiplies by a factor. It is assumed here; a policy may learn the true one from feedback.
"""

from __future__ import annotations

from skyshore.nodemodel.detectors import BEST_COCO_AP, VISION_SHAPES

BEST_MMLU = 76.3

MMLU = {
    "smollm2-135m": (29.3, "SmolLM2 model card, 135M instruct"),
    "yi-6b": (63.2, "Yi technical report"),
    "llama2-7b": (45.3, "Llama 2 paper"),
    "llama3-8b": (66.6, "Llama 3 model card"),
    "yi-9b": (68.4, "Yi technical report"),
    "llama-33b": (57.8, "LLaMA paper"),
    "yi-34b": (76.3, "Yi technical report"),
}

PRECISION_FACTOR = {"": 1.0, "fp32": 1.0, "fp16": 1.0, "q4x": 0.925, "int8": 0.946, "w8a8": 0.86, "int4": 0.70}
"""Share of equal top-1 tokens against 32 bits, measured on smollm2-135m when its export was chosen; w8a8's on the text
of `skyshore profile llm`, where int8 has 0.96 and q4x 0.92."""

ENCODE_FACTOR = {85: 1.0, 50: 0.97}
"""JPEG quality → factor (assumed)."""


def llm_quality(model: str) -> float | None:
    """Quality of `name` or `name:precision` in 0..1; None for a model the table lacks."""
    base, _, precision = model.partition(":")
    if base not in MMLU or precision not in PRECISION_FACTOR:
        return None
    return round(MMLU[base][0] / BEST_MMLU * PRECISION_FACTOR[precision], 3)


def vision_quality(model: str, encode_quality: int) -> float | None:
    """Quality of a detector fed with JPEG of that quality; None for a model the table lacks."""
    shape = VISION_SHAPES.get(model)
    if shape is None:
        return None
    return round(shape.coco_ap / BEST_COCO_AP * ENCODE_FACTOR.get(encode_quality, 1.0), 3)
