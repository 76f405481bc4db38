"""Number formats between ranks, and the bytes of a token. Standard library only."""

from __future__ import annotations

from enum import StrEnum

SCALE_BYTES = 4
"""One fp32 scale per token of the int8 wire."""


class Wire(StrEnum):
    """Number format between ranks; the computation keeps its own."""

    EXACT = "exact"
    """Whatever the activation is made of: fp32 stays fp32, bit for bit."""
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    """Symmetric 8-bit integers, one fp32 scale per token."""

    def token_bytes(self, channels: int, itemsize: int = 4) -> int:
        """Payload of one token of `channels` numbers that are `itemsize` bytes each in memory."""
        match self:
            case Wire.EXACT:
                return channels * itemsize
            case Wire.FP16 | Wire.BF16:
                return channels * 2
            case Wire.INT8:
                return channels + SCALE_BYTES
