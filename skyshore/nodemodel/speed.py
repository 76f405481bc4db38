"""What a node profile holds: the numbers behind one model on one node, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from skyshore.domain.task import TaskKind
from skyshore.domain.video import Codec
from skyshore.nodemodel.turns import LEAST_CHUNK_TOKENS
from skyshore.rules.kernel import kernel
from skyshore.rules.records import Record


@kernel
def iteration_time_s(prefill_tokens: int, rows: int, iteration_s: float, prefill_token_s: float, row_s: float) -> float:
    """Seconds of one iteration; see `LlmSpeed`."""
    return iteration_s + prefill_tokens * prefill_token_s + rows * row_s


@kernel
def batch_time_s(speed: Record, prefill_tokens: int, rows: int) -> float:
    """Seconds of one iteration with its rows padded; `speed` is an ENGINE or an `LlmSpeed`."""
    if speed.row_multiple > 1:
        rows = -(-rows // speed.row_multiple) * speed.row_multiple
    return iteration_time_s(prefill_tokens, rows, speed.iteration_s, speed.prefill_token_s, speed.row_s)


@kernel
def chunk_limit(speed: Record, prompts: int, rows: int) -> int:
    """Most prompt tokens of the next iteration while so many prompts and decoding rows want one."""
    most_tokens: int = speed.chunk_tokens
    if not (speed.stall_ratio and rows and speed.prefill_token_s):
        return most_tokens
    most_s = speed.stall_ratio * prompts * batch_time_s(speed, 0, rows)
    affordable = int((most_s - speed.iteration_s) / speed.prefill_token_s)
    return min(max(affordable, LEAST_CHUNK_TOKENS), most_tokens)


@dataclass(frozen=True, slots=True)
class LlmSpeed:
    """One language model on one node with continuous batching.

    An iteration that prefills `p` prompt tokens and decodes `r` rows takes
    `iteration_s + p * prefill_token_s + r * row_s` seconds: the linear iteration-time model that serving simulators fit
    to measurements (compute grows with tokens, the fixed part is reading the weights once).
    """

    model: str
    source: str
    """Provenance of the figures: `measured:<what>` or `modelled:<how>`."""
    quality: float = 1.0
    iteration_s: float = 0.0
    prefill_token_s: float = 0.0
    row_s: float = 0.0
    slots: int = 8
    """Rows decoded together."""
    kv_tokens: int = 65_536
    """Tokens whose keys and values fit in memory, all rows together."""
    context_tokens: int = 8192
    chunk_tokens: int = 512
    """Prompt tokens prefilled in one iteration at most (chunked prefill)."""
    queue: int = 64
    """Tasks that may wait before the node answers QueueFull."""
    busy_watts: float = 0.0
    """Drawn above idle while an iteration runs."""
    stall_ratio: float = 0.0
    """0: chunks and rows share an iteration. Else they take turns, and a chunk takes at most this share of the time
    of a turn of the rows, once for every prompt that waits (`skyshore/engines/llm`)."""
    row_multiple: int = 1
    """Rows cost as if padded to a multiple of this."""

    def iteration_time_s(self, prefill_tokens: int, rows: int) -> float:
        """Seconds of one iteration."""
        return batch_time_s(self, prefill_tokens, rows)

    def chunk_limit(self, prompts: int, rows: int) -> int:
        """Most prompt tokens of the next iteration while so many prompts and decoding rows want one."""
        return chunk_limit(self, prompts, rows)

    @property
    def instant(self) -> bool:
        """Whether an answer takes no time at all, however long it is."""
        return self.iteration_s == self.prefill_token_s == self.row_s == 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens per second of one full chunk alone on the node; 0 when instant."""
        seconds = self.iteration_time_s(self.chunk_tokens, 0)
        return self.chunk_tokens / seconds if seconds else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens per second of one row alone on the node; 0 when instant."""
        seconds = self.iteration_time_s(0, 1)
        return 1.0 / seconds if seconds else 0.0

    def ttft_s(self, prompt_tokens: int, rows: int = 0) -> float:
        """Predicted time to first token of a prompt that is seated at once, while `rows` answers are being decoded."""
        chunks = -(-prompt_tokens // self.chunk_tokens)
        return chunks * self.iteration_time_s(0, rows) + prompt_tokens * self.prefill_token_s

    def tpot_s(self, rows: int = 1) -> float:
        """Predicted time per output token of each of `rows` answers decoded together."""
        return self.iteration_time_s(0, rows)

    def slowed(self, factor: float) -> LlmSpeed:
        """The same model on a node `factor` times slower."""
        return replace(
            self,
            iteration_s=self.iteration_s * factor,
            prefill_token_s=self.prefill_token_s * factor,
            row_s=self.row_s * factor,
        )


@dataclass(frozen=True, slots=True)
class VideoSpeed:
    """One vision model on one node: `slots` segments side by side, first come first served, frame after frame.

    A segment of `n` frames takes `segment_s + n * frame_s` seconds of one slot.
    """

    model: str
    source: str
    """Provenance of the figures: `measured:<what>` or `modelled:<how>`."""
    quality: float = 1.0
    frame_s: float = 0.0
    segment_s: float = 0.0
    """Paid once per segment."""
    slots: int = 1
    queue: int = 64
    input_size: int = 0
    codec: Codec = Codec.JPEG
    encode_quality: int = 85
    frame_stride: int = 1
    bytes_per_frame: float = 0.0
    busy_watts: float = 0.0
    """Drawn above idle while all slots work; one slot alone draws its share."""
    quality_source: str = ""
    """What `quality` and `map50` were judged against; empty where a table of published figures says it."""
    map50: float = 0.0
    frame_p95_s: float = 0.0
    """95th percentile beside `frame_s`, which is the median where it was measured."""
    cpu_s: float = 0.0
    """CPU seconds of all threads per frame."""
    joules_per_frame: float = 0.0
    """Above idle."""
    energy_source: str = ""
    """Provenance of the joules and watts: `measured:rapl`, `modelled:linear` and so on."""
    kind: TaskKind = TaskKind.VIDEO_DETECT
    """What the model does with frames; a segment of `video.classify` is a whole clip."""

    def service_s(self, frames: int) -> float:
        """Seconds of one slot."""
        return self.segment_s + frames * self.frame_s

    def slowed(self, factor: float) -> VideoSpeed:
        """The same model on a node `factor` times slower."""
        return replace(self, frame_s=self.frame_s * factor, segment_s=self.segment_s * factor)


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """A whole node: its power and every model it can run."""

    name: str
    source: str
    """Provenance of the whole: where the file came from."""
    idle_watts: float = 0.0
    llm: tuple[LlmSpeed, ...] = ()
    video: tuple[VideoSpeed, ...] = ()

    def time_scaled(self, scale: float) -> NodeProfile:
        """The same node, `scale` times as fast and with `scale` times the power: a task takes the same joules."""
        if scale == 1.0:
            return self
        return replace(
            self,
            source=f"{self.source}, time x{scale:g}",
            idle_watts=self.idle_watts * scale,
            llm=tuple(replace(each.slowed(1 / scale), busy_watts=each.busy_watts * scale) for each in self.llm),
            video=tuple(replace(each.slowed(1 / scale), busy_watts=each.busy_watts * scale) for each in self.video),
        )

    def slowed(self, factor: float) -> NodeProfile:
        """The same node, every model `factor` times slower."""
        if factor == 1.0:
            return self
        return replace(
            self,
            source=f"{self.source}, slowed {factor:g}x",
            llm=tuple(speed.slowed(factor) for speed in self.llm),
            video=tuple(speed.slowed(factor) for speed in self.video),
        )
