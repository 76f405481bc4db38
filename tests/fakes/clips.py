"""Small clips made on the spot."""

from pathlib import Path

import av
import numpy as np

from skyshore.workload.synthetic.actions import ActionSpec, action_clip


def make_clip(
    path: Path,
    *,
    frames: int = 20,
    width: int = 96,
    height: int = 64,
    fps: int = 10,
    codec: str = "mpeg4",
    **options: str,
) -> Path:
    """Write a clip at 10 frames a second in which a white square wanders over a grey ramp."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            picture = np.tile(np.linspace(0, 200, width, dtype=np.uint8)[None, :, None], (height, 1, 3))
            at = number * 2 % max(1, width - 20)
            picture[10:30, at : at + 20] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")))
        container.mux(stream.encode(None))
    return path


def make_action_clip(path: Path, action: str, seed: int) -> Path:
    """Write the clip of an action that our generator draws, nearly without loss: what it shows is a few grey levels."""
    pictures = action_clip(action, ActionSpec(), np.random.default_rng(seed))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4, options={"crf": "4"})
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
