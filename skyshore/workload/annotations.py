"""Ground truth others drew: MOT Challenge text and UA-DETRAC XML. Text in, values out; no file is opened here."""

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
    """Boxes per frame, counted from 0. Frames without an entry hold no object."""

    source: str
    """What drew them; goes into reports."""
    boxes: FrameBoxes
    ignored: FrameBoxes = field(default_factory=dict)
    """Regions in which nobody looked for objects."""
    names: Mapping[str, str] = field(default_factory=dict)
    """A detector's class → the class it counts as here; classes not named were not annotated."""

    def renamed(self, found: Iterable[Detection]) -> tuple[Detection, ...]:
        """The detections that can be judged, under the annotations' class names."""
        return tuple(replace(box, label=self.names[box.label]) for box in found if box.label in self.names)


PEDESTRIAN = "1"
_NEUTRAL = {"2", "7", "8", "12"}
"""MOT16 classes that are people in some way (on vehicles, static, distractors, reflections): no error to find."""


def read_mot(text: str) -> Annotations:
    """Read a `gt.txt` of MOT Challenge, any year.

    Lines are `frame, id, left, top, width, height, considered, …`; nine fields (MOT16 and later) hold the class in the
    eighth, ten fields (2015) know pedestrians only. Frames count from 1. Pedestrians become `person`; what the
    benchmark asks not to consider becomes a region to ignore.

    Raises:
        InvalidTask: a line is not of that form, or there is none.
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
                raise ValueError("frames count from 1")
            box = _box("person", left, top, width, height)
        except ValueError as error:
            raise InvalidTask(f"line {number} is no MOT ground truth ({error}): {line[:80]}", param="truth") from None
        kind = parts[7] if len(parts) == 9 else PEDESTRIAN
        if kind == PEDESTRIAN and considered:
            boxes[frame].append(box)
        elif kind == PEDESTRIAN or kind in _NEUTRAL:
            ignored[frame].append(box)
    if not boxes:
        raise InvalidTask("the MOT ground truth holds no pedestrian to find", param="truth")
    return Annotations("MOT ground truth", _frozen(boxes), _frozen(ignored), {"person": "person"})


VEHICLES = ("car", "bus", "truck")


def read_ua_detrac(text: str) -> Annotations:
    """Read one sequence of UA-DETRAC (`MVI_*.xml`, or the `_v3` files with the same layout).

    As in that benchmark all vehicle types count as one class, `vehicle`, and the sequence's ignored regions hold for
    every frame. Frames count from 1.

    Raises:
        InvalidTask: no such document, or one without a vehicle.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InvalidTask("a UA-DETRAC file declares no document type or entities", param="truth")
    try:
        root = ElementTree.fromstring(text)
        frames = {int(frame.attrib["num"]) - 1: frame for frame in root.iter("frame")}
        boxes = {
            index: tuple(_xml_box("vehicle", target.find("box")) for target in frame.iter("target"))
            for index, frame in frames.items()
        }
        regions = tuple(_xml_box("vehicle", box) for box in root.iterfind("ignored_region/box"))
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise InvalidTask(f"no UA-DETRAC annotation ({error!r})", param="truth") from None
    if not any(boxes.values()):
        raise InvalidTask("the UA-DETRAC annotation holds no vehicle", param="truth")
    ignored = dict.fromkeys(range(max(boxes) + 1), regions) if regions else {}
    name = root.attrib.get("name", "sequence")
    return Annotations(f"UA-DETRAC {name}", boxes, ignored, dict.fromkeys(VEHICLES, "vehicle"))


def read_annotations(name: str, text: str) -> Annotations:
    """Read by the file's name: `.xml` is UA-DETRAC, `.txt` and `.csv` are MOT. Raises InvalidTask."""
    if name.endswith(".xml"):
        return read_ua_detrac(text)
    if name.endswith((".txt", ".csv")):
        return read_mot(text)
    raise InvalidTask(f"'{name}' is neither MOT text (.txt, .csv) nor UA-DETRAC XML (.xml)", param="truth")


def write_mot(frames: Iterable[tuple[int, Sequence[Detection]]]) -> str:
    """Detections in MOT's form: frame from 1, id -1, left, top, width, height, score, and three unknowns.

    MOT text has no classes; filter before writing.
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
        raise ValueError(f"{text} is no finite number")
    return value


def _box(label: str, left: float, top: float, width: float, height: float) -> Detection:
    if width <= 0 or height <= 0:
        raise ValueError("a box needs a width and a height")
    return Detection(label, 1.0, left, top, left + width, top + height)


def _frozen(boxes: Mapping[int, Sequence[Detection]]) -> FrameBoxes:
    return {frame: tuple(each) for frame, each in boxes.items()}
