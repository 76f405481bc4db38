"""Nodes, arms and placements."""

from __future__ import annotations

from skyshore.domain.errors import InvalidTask
from skyshore.domain.node import Arm, Node, NodeStatus, Tier
from skyshore.domain.placement import Placement
from skyshore.v1 import node_pb2, scheduler_service_pb2
from skyshore.wire.demand import CODEC_FROM_PROTO, CODEC_TO_PROTO, KIND_FROM_PROTO, KIND_TO_PROTO

TIER_TO_PROTO = {Tier.EDGE: node_pb2.TIER_EDGE, Tier.CLOUD: node_pb2.TIER_CLOUD}
TIER_FROM_PROTO = {proto: tier for tier, proto in TIER_TO_PROTO.items()}


def arm_to_proto(arm: Arm) -> node_pb2.Arm:
    """Arm → message."""
    return node_pb2.Arm(
        arm_id=arm.arm_id,
        node_id=arm.node_id,
        kind=KIND_TO_PROTO[arm.kind],
        model=arm.model,
        quality=arm.quality,
        slots=arm.slots,
        prefill_tokens_per_s=arm.prefill_tokens_per_s,
        decode_tokens_per_s=arm.decode_tokens_per_s,
        context_tokens=arm.context_tokens,
        frame_s=arm.frame_s,
        input_size=arm.input_size,
        codec=CODEC_TO_PROTO[arm.codec],
        encode_quality=arm.encode_quality,
        frame_stride=arm.frame_stride,
        bytes_per_frame=arm.bytes_per_frame,
        busy_watts=arm.busy_watts,
    )


def arm_from_proto(message: node_pb2.Arm) -> Arm:
    """Message → Arm. Raises InvalidTask for an unknown kind or codec."""
    kind, codec = KIND_FROM_PROTO.get(message.kind), CODEC_FROM_PROTO.get(message.codec)
    if kind is None or codec is None:
        raise InvalidTask(f"arm '{message.arm_id}' has no kind or no codec", param="arm")
    return Arm(
        arm_id=message.arm_id,
        node_id=message.node_id,
        kind=kind,
        model=message.model,
        quality=message.quality,
        slots=message.slots,
        prefill_tokens_per_s=message.prefill_tokens_per_s,
        decode_tokens_per_s=message.decode_tokens_per_s,
        context_tokens=message.context_tokens,
        frame_s=message.frame_s,
        input_size=message.input_size,
        codec=codec,
        encode_quality=message.encode_quality,
        frame_stride=message.frame_stride,
        bytes_per_frame=message.bytes_per_frame,
        busy_watts=message.busy_watts,
    )


def tier_from_proto(tier: node_pb2.Tier.ValueType) -> Tier:
    """Message → Tier. Raises InvalidTask for an unknown one."""
    known = TIER_FROM_PROTO.get(tier)
    if known is None:
        raise InvalidTask("the node has no tier; set TIER_EDGE or TIER_CLOUD", param="tier")
    return known


def node_to_proto(node: Node) -> node_pb2.Node:
    """Node → message."""
    return node_pb2.Node(
        node_id=node.node_id,
        tier=TIER_TO_PROTO[node.tier],
        address=node.address,
        arms=[arm_to_proto(arm) for arm in node.arms],
        idle_watts=node.idle_watts,
        engine=node.engine,
        incarnation=node.incarnation,
    )


def node_from_proto(message: node_pb2.Node) -> Node:
    """Message → Node."""
    return Node(
        node_id=message.node_id,
        tier=tier_from_proto(message.tier),
        address=message.address,
        arms=tuple(arm_from_proto(arm) for arm in message.arms),
        idle_watts=message.idle_watts,
        engine=message.engine,
        incarnation=message.incarnation,
    )


def status_to_proto(status: NodeStatus) -> node_pb2.NodeStatus:
    """NodeStatus → message."""
    return node_pb2.NodeStatus(
        node_id=status.node_id,
        running=status.running,
        queued=status.queued,
        capacity=status.capacity,
        kv_used=status.kv_used,
        decode_batch=status.decode_batch,
        tokens_per_s=status.tokens_per_s,
        power_watts=status.power_watts,
        draining=status.draining,
    )


def status_from_proto(message: node_pb2.NodeStatus) -> NodeStatus:
    """Message → NodeStatus."""
    return NodeStatus(
        message.node_id,
        message.running,
        message.queued,
        message.capacity,
        message.kv_used,
        message.decode_batch,
        message.tokens_per_s,
        message.power_watts,
        message.draining,
    )


def report_to_proto(node: Node, status: NodeStatus) -> node_pb2.NodeReport:
    """A registry entry → message."""
    return node_pb2.NodeReport(node=node_to_proto(node), status=status_to_proto(status))


def report_from_proto(message: node_pb2.NodeReport) -> tuple[Node, NodeStatus]:
    """Message → a registry entry."""
    return node_from_proto(message.node), status_from_proto(message.status)


def placement_to_proto(placement: Placement) -> scheduler_service_pb2.PlaceResponse:
    """Placement → message."""
    return scheduler_service_pb2.PlaceResponse(
        arm=arm_to_proto(placement.arm),
        tier=TIER_TO_PROTO[placement.tier],
        address=placement.address,
        policy=placement.policy,
        propensity=placement.propensity,
        decided_at_s=placement.decided_at_s,
        estimated_latency_s=placement.estimated_latency_s,
    )


def placement_from_proto(task_id: str, message: scheduler_service_pb2.PlaceResponse, *, attempt: int = 1) -> Placement:
    """Message → Placement of the task it was asked for."""
    return Placement(
        task_id=task_id,
        arm=arm_from_proto(message.arm),
        tier=tier_from_proto(message.tier),
        address=message.address,
        policy=message.policy,
        propensity=message.propensity,
        decided_at_s=message.decided_at_s,
        estimated_latency_s=message.estimated_latency_s,
        attempt=attempt,
    )
