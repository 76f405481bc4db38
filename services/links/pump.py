"""One direction of one connection: bytes wait for their departure, then for their arrival. Callbacks, no tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np

from services.links.link import DirectionOf, EmulatedLink, ExperimentClock

BACKLOG_CHUNKS = 12
"""Chunks that were read and have not left, 0.12 s of the link; with more, the sender waits, as on a slow path. With
fewer, the link would idle whenever this process does not get the processor for a moment."""
TIMER_S = 0.0005
"""Work that is due within this time is done at once, because timers are not more precise."""


class Pump:
    """Delays bytes as the link does and writes them to its sink when they arrive."""

    def __init__(
        self,
        link: EmulatedLink,
        direction_of: DirectionOf,
        clock: ExperimentClock,
        rng: np.random.Generator,
        on_end: Callable[[], None],
    ) -> None:
        """`on_end` is called when the end of the stream has reached the sink."""
        self._on_end = on_end
        self._link, self._direction_of, self._clock, self._rng = link, direction_of, clock, rng
        self._loop = asyncio.get_running_loop()
        self._shaping = direction_of(link)
        self._shaper = self._shaping.for_connection(rng)
        self._counts_up = self._shaping is link.up
        self._meter = link.meters[0 if self._counts_up else 1]
        # When a piece leaves, when it entered, the piece.
        self._backlog: deque[tuple[float, float, bytes]] = deque()
        # When a piece arrives, when it entered, when it left, the piece; in order of arrival. An empty piece is the end
        # of the stream.
        self._line: deque[tuple[float, float, float, bytes]] = deque()
        self._leaving: asyncio.TimerHandle | None = None
        self._arriving: asyncio.TimerHandle | None = None
        self._source: asyncio.ReadTransport | None = None
        self._sink: asyncio.WriteTransport | None = None
        self._paused = self._sink_full = False
        self._shaping.watchers.add(self.reshape)

    def connect(self, source: asyncio.ReadTransport, sink: asyncio.WriteTransport) -> None:
        """Start: both sockets are open."""
        self._source, self._sink = source, sink
        self._advance()

    def feed(self, data: bytes) -> None:
        """Take bytes from the near end; empty for its end of file."""
        size = self._shaping.chunk_bytes
        pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
        now_s, fixed_s = self._clock.now_s(), self._clock.fixed_now_s()
        for piece in pieces:
            self._backlog.append((self._shaper.depart(now_s, len(piece)), fixed_s, piece))
        self._advance()

    def sink_full(self, full: bool) -> None:
        """The far end is full, or no longer full: pause or resume the near end."""
        self._sink_full = full
        self._pause_or_resume()

    def reshape(self) -> None:
        """The settings of the link changed: bytes that have not left yet follow the new settings."""
        self._shaping = self._direction_of(self._link)
        self._shaper = self._shaping.for_connection(self._rng)
        self._shaping.watchers.add(self.reshape)
        now_s = self._clock.now_s()
        self._backlog = deque(
            (self._shaper.depart(now_s, len(each)), since_s, each) for _, since_s, each in self._backlog
        )
        self._advance()

    def close(self) -> None:
        """Drop all bytes in transit."""
        self._shaping.watchers.discard(self.reshape)
        self._cancel(self._leaving, self._arriving)
        self._backlog.clear()
        self._line.clear()

    def _advance(self) -> None:
        """Move bytes that have left from the backlog to the line."""
        self._cancel(self._leaving)
        now_s = self._clock.now_s()
        left_s = self._clock.fixed_now_s()
        while self._backlog and self._backlog[0][0] <= now_s + TIMER_S:
            departed_s, since_s, piece = self._backlog.popleft()
            # On the monotonic clock: experiment time may restart while bytes are in transit.
            arrives_s = self._clock.fixed_s(self._shaper.arrive(departed_s, len(piece)))
            self._line.append((arrives_s, since_s, left_s, piece))
        if self._backlog:
            self._leaving = self._after(self._backlog[0][0] - now_s, self._advance)
        self._deliver()
        self._pause_or_resume()

    def _deliver(self) -> None:
        """Write what has arrived."""
        self._cancel(self._arriving)
        if self._sink is None:
            return  # not connected yet: some event loops deliver the first bytes before reading can be paused
        now_s = self._clock.fixed_now_s()
        while self._line and self._line[0][0] <= now_s + TIMER_S:
            _, since_s, left_s, piece = self._line.popleft()
            self._write(piece)
            if piece:
                self._meter.observe(since_s, left_s, now_s, len(piece))
        if self._line:
            self._arriving = self._after(self._line[0][0] - now_s, self._deliver)

    def _write(self, piece: bytes) -> None:
        assert self._sink is not None, "_deliver waits for the sink"
        if self._sink.is_closing():
            return
        if not piece:
            self._sink.write_eof()
            self._on_end()
            return
        self._sink.write(piece)
        if self._counts_up:
            self._link.counters.up_bytes += len(piece)
        else:
            self._link.counters.down_bytes += len(piece)

    def _pause_or_resume(self) -> None:
        pause = self._sink_full or len(self._backlog) > BACKLOG_CHUNKS
        if pause == self._paused or self._source is None or self._source.is_closing():
            return
        self._paused = pause
        if pause:
            self._source.pause_reading()
        else:
            self._source.resume_reading()

    @staticmethod
    def _cancel(*handles: asyncio.TimerHandle | None) -> None:
        for handle in handles:
            if handle is not None:
                handle.cancel()

    def _after(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(max(0.0, seconds), call)
