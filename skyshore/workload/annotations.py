"""Reads ground truth of other data sets: MOT Challenge text and UA-DETRAC XML. Takes text; opens no file."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree

from skyshore.domain.errors import InvalidTask
from skyshore.domain.video import Detection

FrameBoxes = Mapping[int, tuple[Detection, ...]]


@dataclass(frozen=True, slots=True)
class Annotations:
    """Boxes per frame; the first frame is 0. A frame without an entry has no object."""

    source: str
    """Name of the data set, for reports."""
    boxes: FrameBoxes
    ignored: FrameBoxes = field(default_factory=dict)
    """Regions that were not annotated."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Class of a detector -> class of the annotations; other classes were not annotated."""

    def renamed(self, found: Iterable[Detection]) -> tuple[Detection, ...]:
        """The detections of annotated classes, with the class names of the annotations."""
        return tuple(replace(box, label=self.names[box.label]) for box in found if box.label in self.names)


PEDESTRIAN = "1"
_NEUTRAL = {"2", "7", "8", "12"}
"""MOT16 classes that are people too (on vehicles, static, distractors, reflections): to find them is not an error."""


def read_mot(text: str) -> Annotations:
    """Read a `gt.txt` of MOT Challenge, any year.

    Lines are `frame, id, left, top, width, height, considered, …`; nine fields (MOT16 and later) hold the class in the
    eighth, ten fields (2015) have pedestrians only. The first frame is 1. Pedestrians become `person`; boxes that
    the benchmark does not consider become regions to ignore.

    Raises:
        InvalidTask: a line has another form, or there is no line.
    """
    boxes: dict[int, list[Detection]] = defaultdict(list)
    ignored: dict[int, list[Detection]] = defaultdict(list)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split(",")]
        try:
            if len(parts) not in (7, 9, 10):
                raise ValueError(f"{len(parts)} fields instead of 7, 9 or 10")
            frame = int(parts[0]) - 1
            left, top, width, height, considered = (_finite(part) for part in parts[2:7])
            if frame < 0:
                raise ValueError("the first frame is 1")
            box = _box("person", left, top, width, height)
        except ValueError as error:
            raise InvalidTask(f"line {number} is not MOT ground truth ({error}): {line[:80]}", param="truth") from None
        kind = parts[7] if len(parts) == 9 else PEDESTRIAN
        if kind == PEDESTRIAN and considered:
            boxes[frame].append(box)
        elif kind == PEDESTRIAN or kind in _NEUTRAL:
            ignored[frame].append(box)
    if not boxes:
        raise InvalidTask("the MOT ground truth has no pedestrian", param="truth")
    return Annotations("MOT ground truth", _frozen(boxes), _frozen(ignored), {"person": "person"})


VEHICLES = ("car", "bus", "truck")


def read_ua_detrac(text: str) -> Annotations:
    """Read one sequence of UA-DETRAC (`MVI_*.xml`, or the `_v3` files with the same layout).

    As in that benchmark, all vehicle types are one class, `vehicle`, and the ignored regions of the sequence apply to
    every frame. The first frame is 1.

    Raises:
        InvalidTask: the text is not such a document, or has no vehicle.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InvalidTask("a UA-DETRAC file must not declare a document type or entities", param="truth")
    try:
        root = ElementTree.fromstring(text)
        frames = {int(frame.attrib["num"]) - 1: frame for frame in root.iter("frame")}
        boxes = {
            index: tuple(_xml_box("vehicle", target.find("box")) for target in frame.iter("target"))
            for index, frame in frames.items()
        }
        regions = tuple(_xml_box("vehicle", box) for box in root.iterfind("ignored_region/box"))
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise InvalidTask(f"not a UA-DETRAC annotation ({error!r})", param="truth") from None
    if not any(boxes.values()):
        raise InvalidTask("the UA-DETRAC annotation has no vehicle", param="truth")
    ignored = dict.fromkeys(range(max(boxes) + 1), regions) if regions else {}
    name = root.attrib.get("name", "sequence")
    return Annotations(f"UA-DETRAC {name}", boxes, ignored, dict.fromkeys(VEHICLES, "vehicle"))


def read_annotations(name: str, text: str) -> Annotations:
    """Read a text by the name of its file: `.xml` is UA-DETRAC, `.txt` and `.csv` are MOT. Raises InvalidTask."""
    if name.endswith(".xml"):
        return read_ua_detrac(text)
    if name.endswith((".txt", ".csv")):
        return read_mot(text)
    raise InvalidTask(f"'{name}' is neither MOT text (.txt, .csv) nor UA-DETRAC XML (.xml)", param="truth")


def write_mot(frames: Iterable[tuple[int, Sequence[Detection]]]) -> str:
    """Detections as MOT text: frame from 1, id -1, left, top, width, height, score, and three times -1.

    MOT text has no classes; filter before you write.
    """
    return "".join(
        f"{index + 1},-1,{box.x1:.2f},{box.y1:.2f},{box.x2 - box.x1:.2f},{box.y2 - box.y1:.2f},"
        f"{box.score:.4f},-1,-1,-1\n"
        for index, boxes in frames
        for box in boxes
    )


def _xml_box(label: str, element: ElementTree.Element | None) -> Detection:
    if element is None:
        raise ValueError("a target without a box")
    return _box(label, *(_finite(element.attrib[name]) for name in ("left", "top", "width", "height")))


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _box(label: str, left: float, top: float, width: float, height: float) -> Detection:
    if width <= 0 or height <= 0:
        raise ValueError("a box needs a width and a height")
    return Detection(label, 1.0, left, top, left + width, top + height)


def _frozen(boxes: Mapping[int, Sequence[Detection]]) -> FrameBoxes:
    return {frame: tuple(each) for frame, each in boxes.items()}
