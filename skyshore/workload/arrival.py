"""One request of an experiment at its intended time: the row of a schedule file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from skyshore.domain.task import TaskKind


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: its time, kind, size and origin. The payload is not here; `prompts` and the replayer generate it.

    Raises:
        ValueError: a field is out of its range, or the request has no work.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    t_intended_s: float
    """Seconds since the start of the schedule. Latency is measured from here, even if the client sends late."""
    request_id: str
    kind: TaskKind
    service_class: str = "standard"
    origin: str = ""
    """Site of the client; empty means that of the gateway."""
    session: str = ""
    """Id of requests that belong together (a conversation, a camera): `thin` keeps or drops them together."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    prefix_ids: tuple[int, ...] = ()
    """One id per prompt block; two prompts share exactly the text of their common first ids."""
    prefix_block_tokens: int = 0
    camera: str = ""
    clip: str = ""
    """Name of the clip that is used as the picture of the camera."""
    first_frame: int = 0
    """Position in the clip, which is repeated from the start at its end."""
    frames: int = 0
    fps: float = 0.0
    objects_per_frame: float = 0.0
    """Mean over the segment, from a ground truth; 0 if there is none."""
    deadline_s: float = 60.0
    min_quality: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for a request that cannot be sent."""
        if not (math.isfinite(self.t_intended_s) and self.t_intended_s >= 0):
            raise ValueError(f"t_intended_s must be finite and at least 0, not {self.t_intended_s}")
        if not (math.isfinite(self.deadline_s) and self.deadline_s > 0):
            raise ValueError(f"deadline_s must be finite and above 0, not {self.deadline_s}")
        if not 0 <= self.min_quality <= 1:
            raise ValueError(f"min_quality must lie in 0..1, not {self.min_quality}")
        if self.kind is TaskKind.LLM:
            if self.prompt_tokens < 1 or self.output_tokens < 1:
                raise ValueError("an llm request needs prompt_tokens and output_tokens of at least 1")
            if self.prefix_ids and self.prefix_block_tokens < 1:
                raise ValueError("prefix_ids need prefix_block_tokens, the tokens per block")
        elif self.frames < 1 or self.fps <= 0 or self.first_frame < 0:
            raise ValueError("a video request needs frames of at least 1, fps above 0 and first_frame of at least 0")
