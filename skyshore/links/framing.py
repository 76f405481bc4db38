"""Bytes of a task's messages beyond their text and pictures: identities, demands, figures, protocol frames.

Measured as the difference between the counters of the link emulator and the payload, one task at a time; under load the
mux packs frames together, and a token then takes a few bytes less.
"""

from __future__ import annotations

REQUEST_BYTES = 300
"""Of a task sent to a node."""
REPLY_BYTES = 150
"""Of an answer's beginning and of the outcome at its end."""
TOKEN_BYTES = 27
"""Of one streamed token, beyond its text."""
FRAME_BYTES = 30
"""Of one picture, beyond its code."""
BOX_BYTES = 32
"""Of one detection, label and all."""
