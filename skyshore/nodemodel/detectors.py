"""The detectors: input size, arithmetic and published accuracy. The only place where these figures are given.

`skyshore/catalogue/detectors.py` says where each one comes from and how its graph is cut; a new detector of a known
family is one entry here and one there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VisionShape:
    """One vision model: what the roofline and the quality table need of it."""

    name: str
    flops_per_frame: float
    """Floating-point operations of one frame at `input_size`."""
    input_size: int
    """Side of the square input, in pixels."""
    coco_ap: float = 0.0
    """Published COCO average precision in percent; 0 for a model that is no detector."""
    coco_ap_source: str = ""


VISION_SHAPES = {
    shape.name: shape
    for shape in (
        VisionShape("ssd-mobilenet", 1.5e9, 300, 22.0, "TensorFlow detection model zoo, ssdlite_mobilenet_v2"),
        VisionShape("nanodet", 4.2e9, 416, 22.9, "NanoDet release notes, NanoDet-g 416"),
        VisionShape(
            "centernet",
            7.0e9,
            512,
            23.4,
            "TensorFlow 2 detection model zoo, the MobileNetV2 variant; V3, used here, has no figure",
        ),
        VisionShape("yolov5s", 16.5e9, 640, 37.4, "YOLOv5 release notes, 640"),
    )
}

BEST_COCO_AP = max(shape.coco_ap for shape in VISION_SHAPES.values())
