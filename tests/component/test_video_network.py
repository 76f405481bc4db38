"""A camera on the network: pictures over a real socket, read by OpenCV as an RTSP stream would be.

RTSP itself needs a server that no Python package here brings; HTTP with one JPEG after the other takes the same way
through OpenCV and FFmpeg: open, read at the sender's pace, time out, end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from skyshore.adapters import video_live
from skyshore.adapters.video_live import LiveFrames, open_camera

BOUNDARY = "picture"
WIDTH, HEIGHT = 160, 120


def jpeg(number: int) -> bytes:
    """A picture whose grey says its number."""
    return bytes(cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 10 + number * 4, np.uint8))[1])


def number_of(picture: np.ndarray) -> int:
    return round((float(picture.mean()) - 10) / 4)


class NetworkCamera(ThreadingHTTPServer):
    """Sends `count` pictures, `pause_s` apart, to each client; then closes the connection, or hangs."""

    daemon_threads = True

    def __init__(self, count: int, pause_s: float, hangs: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.count, self.pause_s, self.hangs = count, pause_s, hangs
        self.sent = 0
        self.over = threading.Event()
        """Ends a camera that hangs."""
        self.all_sent = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/stream.mjpg"


class _Handler(BaseHTTPRequestHandler):
    server: NetworkCamera

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.end_headers()
        try:
            for number in range(self.server.count):
                body = jpeg(number)
                head = f"--{BOUNDARY}\r\ncontent-type: image/jpeg\r\ncontent-length: {len(body)}\r\n\r\n"
                self.wfile.write(head.encode() + body + b"\r\n")
                self.server.sent = number + 1
                time.sleep(self.server.pause_s)
        except ConnectionError:
            return  # the reader had enough
        self.server.all_sent.set()
        if self.server.hangs:
            self.server.over.wait(30.0)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(camera: NetworkCamera) -> Iterator[NetworkCamera]:
    thread = threading.Thread(target=camera.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield camera
    finally:
        camera.over.set()
        camera.shutdown()
        thread.join()
        camera.server_close()


def test_every_picture_of_a_network_stream_comes_in_order_until_the_sender_hangs_up() -> None:
    with serving(NetworkCamera(30, 0.02)) as camera, LiveFrames(open_camera(camera.url, 25.0), room=30) as live:
        seen = [(frame.index, number_of(frame.picture), frame.timestamp_s) for frame in live]
    numbers = [number for _, number, _ in seen]
    # FFmpeg looks at the first pictures to tell what the stream is; it may or may not hand all of those out.
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert len(numbers) >= 25
    assert [index for index, *_ in seen] == list(range(len(seen)))
    times = [at_s for *_, at_s in seen]
    assert times == sorted(times)
    assert live.dropped == 0


def test_a_reader_that_is_late_gets_the_newest_pictures_of_a_network_stream() -> None:
    with serving(NetworkCamera(40, 0.01)) as camera, LiveFrames(open_camera(camera.url, 100.0), room=3) as live:
        assert camera.all_sent.wait(60.0)
        while live.dropped < 20:  # all is sent; what the socket holds is still being read
            time.sleep(0.01)
        first = next(frame for frame in live)
        assert number_of(first.picture) > 15
        rest = [number_of(frame.picture) for frame in live]
    assert rest == sorted(rest)
    assert len(rest) + 1 + live.dropped <= 40


def test_a_network_stream_that_goes_silent_ends_and_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_live, "OPEN_MS", 4000)
    with serving(NetworkCamera(12, 0.02, hangs=True)) as camera, LiveFrames(open_camera(camera.url), room=30) as live:
        began_s = time.monotonic()
        seen = [number_of(frame.picture) for frame in live]
    assert len(seen) >= 5
    assert time.monotonic() - began_s < 60.0
