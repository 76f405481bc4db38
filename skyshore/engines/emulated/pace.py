"""Model time for engines that run live: the loop's clock, possibly faster."""

from __future__ import annotations

import asyncio


class Pace:
    """Turns the event loop's clock into model seconds; `scale` model seconds pass in one real second."""

    def __init__(self, scale: float = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"the time scale must be positive, not {scale}")
        self.scale = scale
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()

    def now_s(self) -> float:
        """Model seconds since the start."""
        return (self._loop.time() - self._start_s) * self.scale

    async def until(self, model_s: float) -> None:
        """Sleep until that model time; returns in the next loop turn when it is past."""
        await asyncio.sleep(max(0.0, (model_s - self.now_s()) / self.scale))


class LastSecond:
    """Sums over the last whole second, for heartbeats."""

    def __init__(self) -> None:
        self._second = -1
        self._open = (0, 0, 0)
        self._closed = (0, 0, 0)

    def add(self, now_s: float, iterations: int, rows: int, tokens: int) -> None:
        """Add `iterations` that decoded `rows` rows and produced `tokens` tokens in total."""
        self._roll(int(now_s))
        i, r, t = self._open
        self._open = (i + iterations, r + rows, t + tokens)

    def read(self, now_s: float) -> tuple[float, float]:
        """Mean rows per iteration and tokens per second."""
        self._roll(int(now_s))
        iterations, rows, tokens = self._closed
        return (rows / iterations if iterations else 0.0), float(tokens)

    def _roll(self, second: int) -> None:
        if second != self._second:
            self._closed = self._open if second == self._second + 1 else (0, 0, 0)
            self._open, self._second = (0, 0, 0), second
