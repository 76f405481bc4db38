"""The methods DSP is compared with, on the same blocks, weights and transports. Each is exact up to rounding."""
