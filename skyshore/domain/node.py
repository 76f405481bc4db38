"""A node, the arms it offers, and its heartbeat."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from skyshore.domain.task import TaskKind
from skyshore.domain.video import Codec


class Tier(StrEnum):
    """Location of a node: near the users, or behind the wide-area link."""

    EDGE = "edge"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Arm:
    """A node plus a configuration: what a policy chooses among.

    Speeds are those of one task alone on an idle node; queueing and batching are estimated on top of them.
    """

    arm_id: str
    node_id: str
    kind: TaskKind
    model: str
    quality: float
    """Expected answer quality in 0..1, relative to the best known model for the kind."""
    slots: int = 1
    """Tasks this arm serves at the same time before they queue."""
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    context_tokens: int = 0
    """Longest prompt plus answer the model takes."""
    frame_s: float = 0.0
    """Seconds of work per frame."""
    input_size: int = 0
    """Longer side in pixels to which the gateway scales frames; 0 sends the original size."""
    codec: Codec = Codec.JPEG
    encode_quality: int = 85
    """JPEG quality 1..100, or H.264 constant rate factor."""
    frame_stride: int = 1
    bytes_per_frame: float = 0.0
    busy_watts: float = 0.0
    """Power drawn above idle while this arm computes."""


@dataclass(frozen=True, slots=True)
class Link:
    """The measured path between gateway and node. Rates are in bytes per second."""

    up_bytes_per_s: float = 0.0
    down_bytes_per_s: float = 0.0
    """0 means not yet measured."""
    rtt_s: float = 0.0
    joules_per_byte: float = 0.0


@dataclass(frozen=True, slots=True)
class Node:
    """Registration: what does not change while a node lives."""

    node_id: str
    tier: Tier
    address: str
    """host:port of its WorkerService."""
    arms: tuple[Arm, ...]
    idle_watts: float = 0.0
    engine: str = "onnx"
    """Name of the engine behind it; `emulated` is shown as such in every report."""
    incarnation: str = ""
    """Unique per process start, so that a restart is distinguished from a pause."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One heartbeat of a node."""

    node_id: str
    running: int = 0
    queued: int = 0
    capacity: int = 1
    """Tasks admitted (running plus queued) before the node answers QueueFull."""
    kv_used: float = 0.0
    """Share of the KV memory in use, 0..1."""
    decode_batch: float = 0.0
    """Mean rows per decode step over the last second."""
    tokens_per_s: float = 0.0
    power_watts: float = 0.0
    draining: bool = False


class NodeReport(NamedTuple):
    """A node with its newest heartbeat, as the registry keeps it."""

    node: Node
    status: NodeStatus


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is right now; feeds the node's heartbeat and admission."""

    running: int
    queued: int
    capacity: int
    kv_used: float = 0.0
    decode_batch: float = 0.0
    tokens_per_s: float = 0.0
