"""What the preference predictor learns from: cameras, real and drawn, with what each segment costs and yields per tier.

A camera is a run of key frames two seconds apart (half a second for the short real clip). Real ones are the catalogue's
clips seen through random crops, light, blur and noise; drawn ones are street clips of random light, noise and traffic.
For every key frame: its complexity vector, its bytes as JPEG in every cloud configuration, and the accuracy of every
configuration. Real: F1 of the tier's detector against yolov5s on the untouched picture (agreement with the best model
here, for the clips have no labels). Drawn: the detectors find no sprites, so the accuracy is modelled from the exact
boxes: an object is found with a chance that falls as its height at the network's input nears what small detectors miss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from skyshore.adapters.onnx_session import OnnxSession, SessionOptions
from skyshore.adapters.video_decode import Picture, open_decoder
from skyshore.adapters.video_encode import encode_jpeg
from skyshore.adapters.video_source import frames, probe
from skyshore.catalogue.store import ready
from skyshore.domain.video import Codec, Detection, SegmentInfo
from skyshore.engines.video.detector import Detector
from skyshore.nodemodel.detectors import VISION_SHAPES
from skyshore.nodemodel.hardware import HARDWARE, video_speed
from skyshore.profiling.complexity import complexity_vector
from skyshore.profiling.detection_quality import detection_quality
from skyshore.workload.synthetic.clips import StreetSpec, street_clip
from training.clip_complexity import clip_file

Floats = NDArray[np.float64]
Report = Callable[[str], None]

SEGMENTS = 20
MIN_SCORE = 0.3
EDGE_MODELS = ("ssd-mobilenet", "nanodet")
CLOUD_MODEL = "yolov5s"
CLOUD_ENCODINGS = ((0, 85), (416, 60), (256, 40))
"""Longer side in pixels (0: as it is) and JPEG quality."""
EDGE_HARDWARE, CLOUD_HARDWARE = "xeon-edge", "t4"
HALF_FOUND_PIXELS = {"ssd-mobilenet": 22.0, "nanodet": 18.0, "yolov5s": 11.0}
"""Modelled: height at the network's input of an object found every other time, without noise."""
INPUT_SIZES = {name: VISION_SHAPES[name].input_size for name in HALF_FOUND_PIXELS}


@dataclass(frozen=True, slots=True)
class Camera:
    """One stream of key frames."""

    name: str
    complexity: Floats
    """[segments, 9]."""
    edge_quality: Floats
    """[segments, edge models], 0..1."""
    cloud_quality: Floats
    """[segments, cloud encodings], 0..1."""
    cloud_bytes: Floats
    """[segments, cloud encodings], bytes of one frame."""


def frame_seconds() -> tuple[Floats, float]:
    """Seconds a frame takes each edge model on the edge, and the cloud model in the cloud (`modelled:roofline`)."""
    edge = [video_speed(HARDWARE[EDGE_HARDWARE], VISION_SHAPES[name]).frame_s for name in EDGE_MODELS]
    return np.array(edge), video_speed(HARDWARE[CLOUD_HARDWARE], VISION_SHAPES[CLOUD_MODEL]).frame_s


def real_cameras(clip: str, count: int, rng: np.random.Generator, report: Report) -> list[Camera]:
    """`count` ways of looking at one catalogue clip.

    Raises:
        NotFetched: the clip or a detector is not in the cache.
    """
    path = clip_file(clip)
    stride = probe(path).frame_count // SEGMENTS
    pictures = [frame.picture for frame in frames(path, stride=stride)][:SEGMENTS]
    detectors = {name: _Runner(ready(name)) for name in (*EDGE_MODELS, CLOUD_MODEL)}
    cameras = []
    for number in range(count):
        view = _View.draw(rng)
        cameras.append(_judged(f"{clip}-{number}", [view.see(picture, rng) for picture in pictures], detectors))
        report(f"{cameras[-1].name}: {SEGMENTS} key frames judged")
    return cameras


def drawn_cameras(prefix: str, count: int, rng: np.random.Generator) -> list[Camera]:
    """`count` street clips of random light, noise, traffic and distance."""
    return [_drawn(f"{prefix}-{number}", rng) for number in range(count)]


@dataclass(frozen=True, slots=True)
class _View:
    """A fixed crop and a fixed way of degrading the picture."""

    left: float
    top: float
    share: float
    light: float
    blur: float
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _View:
        share = rng.uniform(0.5, 1.0)
        left, top = rng.uniform(0, 1 - share, 2)
        blur = float(rng.choice([0.0, 0.0, rng.uniform(0.5, 2)]))
        return cls(left, top, share, rng.uniform(0.35, 1.1), blur, rng.uniform(0, 12))

    def see(self, picture: Picture, rng: np.random.Generator) -> Picture:
        height, width = picture.shape[:2]
        y, x = int(self.top * height), int(self.left * width)
        part = picture[y : y + int(self.share * height), x : x + int(self.share * width)]
        whole = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        seen = np.asarray(cv2.GaussianBlur(whole, (0, 0), self.blur) if self.blur else whole) * self.light
        return np.clip(seen + rng.normal(0.0, self.noise, seen.shape), 0, 255).astype(np.uint8)


class _Runner:
    """One detector, one thread."""

    def __init__(self, folder: Path) -> None:
        self._detector = Detector(folder)
        self._session = OnnxSession(self._detector.model_file, SessionOptions(intra_op_threads=1))

    def detect(self, picture: Picture, like: Picture) -> tuple[Detection, ...]:
        """Boxes in the pixels of `like`, which may be larger than what was sent."""
        height, width = like.shape[:2]
        size = self._detector.input_size(width, height)
        answers = self._session.run({"frames": self._detector.prepare(picture, size)[None]})
        outputs = {name: answer[0] for name, answer in zip(self._session.outputs, answers, strict=True)}
        return self._detector.detections(outputs, size, SegmentInfo(0, 1, width, height, min_score=MIN_SCORE))


def _judged(name: str, pictures: Sequence[Picture], detectors: dict[str, _Runner]) -> Camera:
    complexity, edge, cloud, sizes = [], [], [], []
    for picture in pictures:
        best = detectors[CLOUD_MODEL].detect(picture, picture)
        sent = [encode_jpeg(picture, quality, side) for side, quality in CLOUD_ENCODINGS]
        arrived = [open_decoder(Codec.JPEG).decode(data)[0] for data in sent]
        complexity.append(complexity_vector(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.uint8)))
        edge.append([_f1(best, detectors[model].detect(picture, picture)) for model in EDGE_MODELS])
        cloud.append([_f1(best, detectors[CLOUD_MODEL].detect(each, picture)) for each in arrived])
        sizes.append([len(data) for data in sent])
    return Camera(name, np.array(complexity), _steadied(edge), _steadied(cloud), np.array(sizes, float))


def _drawn(name: str, rng: np.random.Generator) -> Camera:
    spec = StreetSpec(
        frame_count=SEGMENTS,
        fps=0.5,
        calm_arrivals_per_s=rng.uniform(0.05, 0.4),
        busy_arrivals_per_s=rng.uniform(0.5, 3.0),
        phase_s=rng.uniform(4, 16),
        light=rng.uniform(0.25, 1.1),
        noise=rng.uniform(0, 14),
        occluders=int(rng.integers(0, 6)),
    )
    clip = street_clip(spec, rng)
    far = rng.uniform(0.35, 1.3)  # how large the street stands in the picture; below 1 it is seen from further away
    hidden = spec.noise / (25.0 * spec.light)
    complexity, edge, cloud, sizes = [], [], [], []
    for frame, truth in zip(clip.frames, clip.truth, strict=True):
        picture = _seen_from(frame[..., ::-1], far)
        heights = np.array([box.y2 - box.y1 for box in truth.detections]) * far / max(picture.shape[:2])
        sent = [encode_jpeg(picture, quality, side) for side, quality in CLOUD_ENCODINGS]
        complexity.append(complexity_vector(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.uint8)))
        edge.append([_found(heights, model, 0, 85, hidden) for model in EDGE_MODELS])
        cloud.append([_found(heights, CLOUD_MODEL, side, quality, hidden) for side, quality in CLOUD_ENCODINGS])
        sizes.append([len(data) for data in sent])
    return Camera(name, np.array(complexity), _steadied(edge), _steadied(cloud), np.array(sizes, float))


def _seen_from(picture: Picture, far: float) -> Picture:
    height, width = picture.shape[:2]
    if far >= 1:
        rows, columns = int(height / far), int(width / far)
        return cv2.resize(picture[height - rows :, :columns], (width, height)).astype(np.uint8)
    small = cv2.resize(picture, (int(width * far), int(height * far)), interpolation=cv2.INTER_AREA)
    rows, columns = height - small.shape[0], width - small.shape[1]
    return cv2.copyMakeBorder(small, rows, 0, columns // 2, columns - columns // 2, cv2.BORDER_REFLECT).astype(np.uint8)


def _found(heights: Floats, model: str, side: int, quality: int, hidden: float) -> float:
    """Modelled F1 with no false alarms: objects found by their height at the network's input; noise hides them."""
    if not len(heights):
        return 1.0
    pixels = heights * min(side or 640, INPUT_SIZES[model])
    half = HALF_FOUND_PIXELS[model] * (1.0 + hidden) * (1.0 + (85 - quality) / 200.0)
    recall = float((1.0 / (1.0 + np.exp(-(pixels - half) / (0.2 * half)))).mean())
    return 2 * recall / (1 + recall)


def _f1(reference: Sequence[Detection], found: Sequence[Detection]) -> float:
    return detection_quality({0: reference}, {0: found}, min_score=MIN_SCORE).f1


def _steadied(rows: Sequence[Sequence[float]]) -> Floats:
    """A segment is more than its key frame: mean with the key frames before and after."""
    table = np.pad(np.array(rows), ((1, 1), (0, 0)), mode="edge")
    return np.asarray((table[:-2] + table[1:-1] + table[2:]) / 3, np.float64)
