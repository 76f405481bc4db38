"""Requests from the front to its ranks; both sides derive the same plan from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from cloud_node.classify.model import BATCH, SPACE, TIME, SpaceTimeTransformer, stages
from cloud_node.dsp.cost import Fabric
from cloud_node.dsp.plan import Planner, Residual, SwitchPlan
from cloud_node.dsp.wire import Wire


class EngineKind(StrEnum):
    """What computes a stage."""

    TORCH = "torch"
    ONNX = "onnx"


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """A batch of clips on some ranks. Every rank derives the same plan from it."""

    batch: int
    fabric: Fabric
    wire: Wire = Wire.EXACT
    chunks: int = 1

    def plan(self, model: SpaceTimeTransformer, ranks: int, engine: EngineKind) -> SwitchPlan:
        """The fastest plan; ONNX stages always move the residual stream, since it lives inside their graphs."""
        shape = model.config.token_shape(self.batch)
        moves = engine is EngineKind.ONNX or self.wire is Wire.EXACT
        listed = stages(model.spatial_temporal_blocks(), shape)
        # A batch that fills the ranks needs no switch at all; otherwise time and space are cut.
        cuts: list[tuple[int, ...]] = [(BATCH,)] if self.batch >= ranks else []
        cuts += [(TIME, SPACE)] if ranks > 1 else []
        planners = [Planner(self.fabric, self.wire, dims=c, residual=Residual.MOVES if moves else None) for c in cuts]
        plans = [p.plan(listed, shape, ranks, gather_channels=model.config.labels) for p in planners]
        return min(plans, key=lambda plan: plan.seconds)

    def to_json(self) -> dict[str, Any]:
        """As the message head carries it."""
        return {"kind": "classify", **asdict(self)}

    @classmethod
    def from_json(cls, head: Mapping[str, Any]) -> ClassifyRequest:
        """Inverse of `to_json`."""
        return cls(int(head["batch"]), Fabric(**head["fabric"]), Wire(head["wire"]), int(head["chunks"]))


CALIBRATE: dict[str, Any] = {"kind": "calibrate"}
"""Asks all ranks of the job to measure themselves and the link between them."""
