"""Features of a task, as the profiler found them. The policy sees these and never the payload."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskProfile:
    """LLM tasks fill the token fields, video tasks the frame fields; the rest stay zero."""

    prompt_tokens: int = 0
    expected_output_tokens: float = 0.0
    frame_count: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    input_bytes: int = 0
    """Bytes of the request as the caller sent them."""
    complexity: tuple[float, ...] = ()
    """Multi-scale structural complexity C_0..C_{K-1} of a key frame (arXiv 2003.04632)."""
    compute_preference: float = 0.5
    """Probability in 0..1 that compute, rather than bandwidth, is what this task needs most (CDIO)."""
