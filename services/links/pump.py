"""One direction of one connection: bytes wait until they have left, then until they arrive. Callbacks, no tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np

from services.links.link import ExperimentClock, Link, Pick

BACKLOG_CHUNKS = 12
"""Chunks read and not yet gone, 0.12 s of the link; with more the sender waits, as it would on a slow path. Fewer would
let the link run dry whenever this process is kept from the processor for a moment."""
TIMER_S = 0.0005
"""What is due within this time is done at once: no timer is finer."""


class Pump:
    """Shapes what it is fed and writes it to its sink when it arrives."""

    def __init__(
        self, link: Link, pick: Pick, clock: ExperimentClock, rng: np.random.Generator, on_end: Callable[[], None]
    ) -> None:
        """`on_end` is called when the end of the stream has reached the sink."""
        self._on_end = on_end
        self._link, self._pick, self._clock, self._rng = link, pick, clock, rng
        self._loop = asyncio.get_running_loop()
        self._shaping = pick(link)
        self._way = self._shaping.way(rng)
        self._counts_up = self._shaping is link.up
        self._meter = link.meters[0 if self._counts_up else 1]
        # When a piece leaves, when it entered, the piece.
        self._backlog: deque[tuple[float, float, bytes]] = deque()
        # When a piece arrives, when it entered, when it left, the piece; in the order they arrive. The end of the
        # stream travels among them as an empty chunk.
        self._line: deque[tuple[float, float, float, bytes]] = deque()
        self._leaving: asyncio.TimerHandle | None = None
        self._arriving: asyncio.TimerHandle | None = None
        self._source: asyncio.ReadTransport | None = None
        self._sink: asyncio.WriteTransport | None = None
        self._paused = self._sink_full = False
        self._shaping.watchers.add(self.reshape)

    def connect(self, source: asyncio.ReadTransport, sink: asyncio.WriteTransport) -> None:
        """Both ends are there: begin."""
        self._source, self._sink = source, sink
        self._advance()

    def feed(self, data: bytes) -> None:
        """Bytes the near end sent; empty for its end of file."""
        size = self._shaping.chunk_bytes
        pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
        now_s, fixed_s = self._clock.now_s(), self._clock.fixed_now_s()
        for piece in pieces:
            self._backlog.append((self._way.depart(now_s, len(piece)), fixed_s, piece))
        self._advance()

    def sink_full(self, full: bool) -> None:
        """The far end takes no more (or takes more again): so must the near end."""
        self._sink_full = full
        self._hold_or_go()

    def reshape(self) -> None:
        """The link's settings changed: what has not left yet is sent anew by the new ones."""
        self._shaping = self._pick(self._link)
        self._way = self._shaping.way(self._rng)
        self._shaping.watchers.add(self.reshape)
        now_s = self._clock.now_s()
        self._backlog = deque((self._way.depart(now_s, len(piece)), since, piece) for _, since, piece in self._backlog)
        self._advance()

    def close(self) -> None:
        """Forget everything under way."""
        self._shaping.watchers.discard(self.reshape)
        self._disarm(self._leaving, self._arriving)
        self._backlog.clear()
        self._line.clear()

    def _advance(self) -> None:
        """Move what has left into the line."""
        self._disarm(self._leaving)
        now_s = self._clock.now_s()
        left_s = self._clock.fixed_now_s()
        while self._backlog and self._backlog[0][0] <= now_s + TIMER_S:
            departed_s, since_s, piece = self._backlog.popleft()
            # On the fixed clock: experiment time may start over while bytes are under way.
            arrives_s = self._clock.fixed_s(self._way.arrive(departed_s, len(piece)))
            self._line.append((arrives_s, since_s, left_s, piece))
        if self._backlog:
            self._leaving = self._after(self._backlog[0][0] - now_s, self._advance)
        self._deliver()
        self._hold_or_go()

    def _deliver(self) -> None:
        """Write what has arrived."""
        self._disarm(self._arriving)
        if self._sink is None:
            return  # still dialling: some loops hand over first bytes before reading can be paused
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
            self._link.passed.up_bytes += len(piece)
        else:
            self._link.passed.down_bytes += len(piece)

    def _hold_or_go(self) -> None:
        hold = self._sink_full or len(self._backlog) > BACKLOG_CHUNKS
        if hold == self._paused or self._source is None or self._source.is_closing():
            return
        self._paused = hold
        if hold:
            self._source.pause_reading()
        else:
            self._source.resume_reading()

    @staticmethod
    def _disarm(*handles: asyncio.TimerHandle | None) -> None:
        for handle in handles:
            if handle is not None:
                handle.cancel()

    def _after(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(max(0.0, seconds), call)
