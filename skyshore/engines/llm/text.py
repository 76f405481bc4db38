"""From tokens to text as they arrive: complete UTF-8 characters only, and no text that may become a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of successive tokens into text that is safe to send."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Cut the text before the first of `stops`."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False
        """Whether a stop string has appeared; the text ended before it."""

    def push(self, piece: bytes) -> str:
        """Text that is final after `piece`; it may be empty, or include earlier pieces."""
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """The rest of the text. An incomplete character at the end becomes U+FFFD."""
        text = self._release(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text + ("" if self.stopped else held)

    def _release(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        if not self._stops:
            return text
        found = [position for position in (text.find(stop) for stop in self._stops) if position >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` may go on from."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if stop.startswith(text[-length:])), 0)
