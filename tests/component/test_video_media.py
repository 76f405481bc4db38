"""Clips in, frames out; frames in, clips out; and whatever is no clip is refused with a reason, never a crash."""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyshore.adapters import video_draw, video_encode
from skyshore.adapters.video_decode import H264Decoder, JpegDecoder, jpeg_size
from skyshore.adapters.video_source import ClipLimits, frames, probe
from skyshore.domain.errors import InvalidMedia, InvalidTask
from skyshore.domain.video import Detection


def shade(index: int) -> int:
    return 20 + 12 * index


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Left half carries the frame's number as a grey, the right half is white: order and orientation both show."""
    canvas = np.full((height, width, 3), shade(index), np.uint8)
    canvas[:, width // 2 :] = 255
    return canvas


def write_clip(path: Path, count: int = 10, codec: str = "libx264", pix_fmt: str = "yuv420p", **how: Any) -> Path:
    width, height, times = how.get("width", 64), how.get("height", 48), how.get("times", range(count))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=how.get("options", {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = Fraction(1, 10)
        for index, time in zip(range(count), times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="bgr24")
            frame.pts, frame.time_base = time, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


CONTAINERS = [
    ("mp4", "libx264", "yuv420p"),
    ("mkv", "libx264", "yuv420p10le"),
    ("avi", "mpeg4", "yuv420p"),
    ("avi", "mjpeg", "yuvj420p"),
    ("webm", "libvpx", "yuv420p"),
    ("ts", "libx264", "yuv420p"),
]


@pytest.mark.parametrize(("suffix", "codec", "pix_fmt"), CONTAINERS)
def test_every_frame_of_a_clip_comes_once_in_order(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", codec=codec, pix_fmt=pix_fmt)
    info = probe(path)
    assert (info.width, info.height, info.frame_count, info.rotation) == (64, 48, 10, 0)
    assert info.fps == pytest.approx(10, rel=0.01)
    seen = list(frames(path))
    assert [f.index for f in seen] == list(range(10))
    assert [f.timestamp_s for f in seen] == pytest.approx([i / 10 for i in range(10)], abs=0.011)
    for frame in seen:
        assert abs(float(frame.picture[:, 4:28].mean()) - shade(frame.index)) < 5
        assert frame.picture[:, 36:60].mean() > 245


def test_a_stride_keeps_the_indices_of_the_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    assert [f.index for f in frames(path, stride=4)] == [0, 4, 8]


def test_variable_frame_rate_keeps_its_own_times(tmp_path: Path) -> None:
    times = [0, 1, 2, 7, 8, 20, 21, 22, 30, 44]
    path = write_clip(tmp_path / "clip.mkv", times=times)
    assert [f.timestamp_s for f in frames(path)] == pytest.approx([t / 10 for t in times], abs=0.002)


@pytest.mark.parametrize(("width", "height"), [(2, 2), (66, 50), (130, 34)])
def test_small_and_odd_shapes_are_read(tmp_path: Path, width: int, height: int) -> None:
    path = write_clip(tmp_path / "clip.mkv", count=3, width=width, height=height)
    assert [f.picture.shape for f in frames(path)] == [(height, width, 3)] * 3


def test_a_single_pixel_is_read(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", count=2, codec="mjpeg", pix_fmt="yuvj444p", width=1, height=1)
    assert [f.picture.shape for f in frames(path)] == [(1, 1, 3)] * 2


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_phone_clip_comes_out_upright(tmp_path: Path, degrees: int) -> None:
    """The matrix of an MP4 track header says how to turn the stored picture clockwise for display."""
    path = write_clip(tmp_path / "clip.mp4", count=2)
    data = bytearray(path.read_bytes())
    matrix_at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    one, unit = 1 << 16, 1 << 30
    data[matrix_at : matrix_at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, unit)
    path.write_bytes(data)
    info = probe(path)
    upright = next(iter(frames(path))).picture
    assert upright.shape[:2] == (info.height, info.width) == ((48, 64) if degrees == 180 else (64, 48))
    stored = picture(0)
    expected = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}[degrees]
    assert np.abs(upright.astype(int) - cv2.rotate(stored, expected)).mean() < 4


def text(path: Path) -> None:
    path.write_text("this is a letter, not a film\n" * 50)


def empty(path: Path) -> None:
    path.touch()


def still_sound(path: Path) -> None:
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))


def half_an_mp4(path: Path) -> None:
    data = write_clip(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def half_a_faststart_mp4(path: Path) -> None:
    whole = path.with_suffix(".whole.mp4")
    with video_draw.Mp4Writer(whole, 10) as writer:
        for index in range(40):
            writer.write(np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def half_an_avi(path: Path) -> None:
    data = write_clip(path.with_suffix(".avi"), count=19, codec="mjpeg", pix_fmt="yuvj420p").read_bytes()
    path.write_bytes(data[: len(data) // 2])


def no_frames(path: Path) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()


def claiming(path: Path, side: int) -> None:
    data = bytearray(write_clip(path.with_suffix(".avi"), codec="rawvideo").read_bytes())
    at = data.index(b"strf") + 12
    data[at : at + 8] = struct.pack("<2i", side, side)
    path.write_bytes(data)


def large(path: Path) -> None:
    claiming(path, 8000)


def monstrous(path: Path) -> None:
    claiming(path, 20000)


REFUSED = {
    text: "no video file|holds no",
    empty: "no video file",
    still_sound: "no video file",
    half_an_mp4: "no video file|cut off|damaged",
    half_a_faststart_mp4: "cut off|damaged",
    half_an_avi: "cut off|damaged",
    no_frames: "holds no",
    large: "8000×8000",
    monstrous: "far too large",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda f: f.__name__)
def test_what_is_no_whole_video_is_refused_with_its_reason(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "clip.mp4"
    make(path)
    with pytest.raises(InvalidMedia, match=REFUSED[make]):
        probe(path)


def test_limits_hold_for_frames_and_their_size(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv")
    with pytest.raises(InvalidMedia, match="more than 5 frames"):
        probe(path, ClipLimits(frames=5))
    with pytest.raises(InvalidMedia, match="more than 5 frames"):
        list(frames(path, limits=ClipLimits(frames=5)))
    with pytest.raises(InvalidMedia, match="64×48"):
        probe(path, ClipLimits(pixels_per_frame=1000))


CODEC_NAMES = (b"avc1", b"hvc1", b"mp4v", b"FMP4", b"MJPG", b"H264", b"V_VP8", b"V_MPEG4/ISO/AVC")


def mislabelled(data: bytearray, rng: np.random.Generator) -> bytearray:
    """The clip says that it holds another codec than it does, and a few of its frames are no frames of either."""
    for name in CODEC_NAMES:
        other = CODEC_NAMES[int(rng.integers(len(CODEC_NAMES)))]
        data = data.replace(name, other[: len(name)].ljust(len(name), b"1"))
    at = int(rng.integers(len(data) // 2, len(data)))
    data[at : at + 64] = rng.bytes(min(64, len(data) - at))
    return data


def test_three_hundred_damaged_clips_never_crash_hang_or_leak(tmp_path: Path) -> None:
    seeds = [
        write_clip(tmp_path / f"{i}.{suffix}", codec=codec, pix_fmt=pix_fmt).read_bytes()
        for i, (suffix, codec, pix_fmt) in enumerate(CONTAINERS)
    ]
    rng = np.random.default_rng(20)
    path = tmp_path / "damaged"
    limits = ClipLimits(pixels_per_frame=1 << 20, frames=1000)
    probe(write_clip(tmp_path / "warm.mp4"))  # whatever the libraries keep open for good is open now
    before = len(os.listdir("/proc/self/fd"))
    refused = 0
    for number in range(300):
        data = bytearray(seeds[number % len(seeds)])
        match number // len(seeds) % 5:
            case 0:
                data = data[: int(rng.integers(1, len(data)))]
            case 1:
                for at in rng.integers(0, len(data), 1 + len(data) // 200):
                    data[at] ^= 1 << int(rng.integers(8))
            case 2:
                for at in rng.integers(0, min(len(data), 600), 8):
                    data[at] = int(rng.integers(256))
            case 3:
                data = mislabelled(data, rng)
            case _:
                start, end = sorted(rng.integers(0, len(data), 2))
                del data[start:end]
        path.write_bytes(data)
        for read in (probe, lambda p, limits: list(frames(p, limits=limits))):
            try:
                read(path, limits)
            except InvalidMedia:
                refused += 1
    assert refused > 50
    assert len(os.listdir("/proc/self/fd")) <= before


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_jpeg_size_or_refused(data: bytes, with_marker: bool) -> None:
    try:
        width, height = jpeg_size(b"\xff\xd8\xff" + data if with_marker else data)
    except InvalidMedia:
        return
    assert width > 0
    assert height > 0


def test_jpeg_quality_and_size_are_settings(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    photo = cv2.GaussianBlur(noisy, (9, 9), 0)
    sizes = [len(video_encode.encode_jpeg(photo, quality)) for quality in (10, 50, 90)]
    assert sizes[0] < sizes[1] < sizes[2]
    small = video_encode.encode_jpeg(photo, 50, longer_side=320)
    assert jpeg_size(small) == (320, 240)
    assert JpegDecoder().decode(small)[0].shape == (240, 320, 3)
    for quality in (0, 101):
        with pytest.raises(InvalidTask):
            video_encode.encode_jpeg(photo, quality)


def test_a_frame_is_never_enlarged_and_comes_out_even() -> None:
    assert video_encode.fit(np.zeros((101, 77, 3), np.uint8), 500).shape == (101, 77, 3)
    assert video_encode.fit(np.zeros((101, 77, 3), np.uint8), 50).shape == (50, 38, 3)


def test_h264_gives_one_access_unit_per_frame_and_decodes_alone() -> None:
    encoder, decoder = video_encode.H264Encoder(64, 48, 10, 18), H264Decoder()
    for index in range(12):
        data = encoder.encode(picture(index))
        assert data.startswith(b"\x00\x00\x00\x01")
        (decoded,) = decoder.decode(data)
        assert abs(float(decoded[:, 4:28].mean()) - shade(index)) < 4
    assert decoder.flush() == []


@pytest.mark.parametrize("fps", [29.97, 23.976, 12.5, 1.0])
def test_h264_takes_odd_sizes_and_broken_rates(fps: float) -> None:
    encoder, decoder = video_encode.H264Encoder(65, 49, fps, 18), H264Decoder()
    (decoded,) = decoder.decode(encoder.encode(picture(3, 65, 49)))
    assert decoded.shape == (48, 64, 3)
    assert abs(float(decoded[:, 4:28].mean()) - shade(3)) < 4


def test_the_rate_factor_is_a_setting_and_is_checked() -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    sizes = [len(video_encode.H264Encoder(64, 48, 10, crf).encode(noisy)) for crf in (40, 28, 16)]
    assert sizes[0] < sizes[1] < sizes[2]
    with pytest.raises(InvalidTask, match=r"0\.\.51"):
        video_encode.H264Encoder(64, 48, 10, 52)


def test_boxes_are_drawn_on_a_copy_where_they_belong() -> None:
    blank = np.zeros((200, 300, 3), np.uint8)
    drawn = video_draw.draw(blank, [Detection("person", 0.9, 50, 60, 120, 160)])
    assert not blank.any()
    assert drawn[100, 50].any()
    assert drawn[160, 80].any()
    assert not drawn[110, 85].any()
    assert not drawn[:, 200:].any()


def test_an_annotated_clip_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "annotated.mp4"
    with video_draw.Mp4Writer(path, fps=12.5) as writer:
        for index in range(10):
            writer.write(picture(index, 65, 49))
    info = probe(path)
    assert (info.width, info.height, info.frame_count) == (64, 48, 10)
    assert info.fps == pytest.approx(12.5)
    assert [abs(float(f.picture[:, 4:28].mean()) - shade(f.index)) < 5 for f in frames(path)] == [True] * 10


def test_a_contact_sheet_shows_every_picture_in_reading_order(tmp_path: Path) -> None:
    sheet = video_draw.contact_sheet([picture(i) for i in range(6)], columns=4, tile_width=32)
    assert sheet.shape == (48, 128, 3)
    corners = [int(sheet[12 + 24 * (i // 4), 4 + 32 * (i % 4), 0]) for i in range(6)]
    assert corners == [shade(i) for i in range(6)]
    video_draw.write_png(tmp_path / "sheet.png", sheet)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == sheet.shape
