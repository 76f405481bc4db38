"""Chunks, detections, outcomes and decisions."""

from __future__ import annotations

from skyshore.domain.errors import Internal
from skyshore.domain.llm import FinishReason, TokenChunk, TokenLogprob
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.placement import DecisionRecord
from skyshore.domain.video import Classification, Detection, FrameDetections, SegmentEvent
from skyshore.v1 import outcome_pb2, worker_service_pb2

STATUS_TO_PROTO = {
    OutcomeStatus.OK: outcome_pb2.OUTCOME_STATUS_OK,
    OutcomeStatus.FAILED: outcome_pb2.OUTCOME_STATUS_FAILED,
    OutcomeStatus.CANCELLED: outcome_pb2.OUTCOME_STATUS_CANCELLED,
    OutcomeStatus.DEADLINE_EXCEEDED: outcome_pb2.OUTCOME_STATUS_DEADLINE_EXCEEDED,
    OutcomeStatus.REJECTED: outcome_pb2.OUTCOME_STATUS_REJECTED,
}
STATUS_FROM_PROTO = {proto: status for status, proto in STATUS_TO_PROTO.items()}
FINISH_TO_PROTO = {
    None: worker_service_pb2.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: worker_service_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: worker_service_pb2.FINISH_REASON_LENGTH,
}
FINISH_FROM_PROTO = {proto: reason for reason, proto in FINISH_TO_PROTO.items()}


def chunk_to_proto(chunk: TokenChunk) -> worker_service_pb2.TokenChunk:
    """TokenChunk → message."""
    return worker_service_pb2.TokenChunk(
        text=chunk.text,
        token_count=chunk.token_count,
        logprobs=[
            worker_service_pb2.TokenLogprob(
                token=entry.token,
                logprob=entry.logprob,
                top=[worker_service_pb2.TopLogprob(token=token, logprob=logprob) for token, logprob in entry.top],
            )
            for entry in chunk.logprobs
        ],
        finish_reason=FINISH_TO_PROTO[chunk.finish_reason],
        prompt_tokens=chunk.prompt_tokens,
        cached_tokens=chunk.cached_tokens,
    )


def chunk_from_proto(message: worker_service_pb2.TokenChunk) -> TokenChunk:
    """Message → TokenChunk."""
    return TokenChunk(
        message.text,
        message.token_count,
        tuple(
            TokenLogprob(entry.token, entry.logprob, tuple((rival.token, rival.logprob) for rival in entry.top))
            for entry in message.logprobs
        ),
        FINISH_FROM_PROTO[message.finish_reason],
        message.prompt_tokens,
        message.cached_tokens,
    )


def detections_to_proto(frame: FrameDetections) -> worker_service_pb2.FrameDetections:
    """FrameDetections → message."""
    return worker_service_pb2.FrameDetections(
        frame_index=frame.frame_index,
        timestamp_s=frame.timestamp_s,
        detections=[
            worker_service_pb2.Detection(label=d.label, score=d.score, x1=d.x1, y1=d.y1, x2=d.x2, y2=d.y2)
            for d in frame.detections
        ],
    )


def detections_from_proto(message: worker_service_pb2.FrameDetections) -> FrameDetections:
    """Message → FrameDetections."""
    return FrameDetections(
        message.frame_index,
        message.timestamp_s,
        tuple(Detection(d.label, d.score, d.x1, d.y1, d.x2, d.y2) for d in message.detections),
    )


def classification_to_proto(found: Classification) -> worker_service_pb2.Classification:
    """Classification → message."""
    pairs = zip(found.labels, found.scores, strict=True)
    labels = [worker_service_pb2.LabelScore(label=label, score=score) for label, score in pairs]
    return worker_service_pb2.Classification(labels=labels, ranks=found.ranks, batch=found.batch)


def classification_from_proto(message: worker_service_pb2.Classification) -> Classification:
    """Message → Classification."""
    return Classification(
        tuple(entry.label for entry in message.labels),
        tuple(entry.score for entry in message.labels),
        message.ranks,
        message.batch,
    )


def segment_event_to_proto(event: SegmentEvent) -> worker_service_pb2.ExecuteSegmentResponse:
    """SegmentEvent → message."""
    match event:
        case FrameDetections():
            return worker_service_pb2.ExecuteSegmentResponse(detections=detections_to_proto(event))
        case Classification():
            return worker_service_pb2.ExecuteSegmentResponse(classification=classification_to_proto(event))
        case WorkerOutcome():
            return worker_service_pb2.ExecuteSegmentResponse(outcome=worker_outcome_to_proto(event))


def segment_event_from_proto(message: worker_service_pb2.ExecuteSegmentResponse) -> SegmentEvent:
    """Message → SegmentEvent. Raises Internal for a message that brings nothing this build knows."""
    match message.WhichOneof("event"):
        case "detections":
            return detections_from_proto(message.detections)
        case "classification":
            return classification_from_proto(message.classification)
        case "outcome":
            return worker_outcome_from_proto(message.outcome)
        case _:
            raise Internal("the node sent an empty message about a segment; do both run the same version?")


def worker_outcome_to_proto(outcome: WorkerOutcome) -> outcome_pb2.WorkerOutcome:
    """WorkerOutcome → message."""
    return outcome_pb2.WorkerOutcome(
        queue_s=outcome.queue_s,
        prefill_s=outcome.prefill_s,
        compute_s=outcome.compute_s,
        prompt_tokens=outcome.prompt_tokens,
        cached_tokens=outcome.cached_tokens,
        output_tokens=outcome.output_tokens,
        frames=outcome.frames,
        inference_joules=outcome.inference_joules,
        idle_joules=outcome.idle_joules,
        energy_source=outcome.energy_source,
    )


def worker_outcome_from_proto(message: outcome_pb2.WorkerOutcome) -> WorkerOutcome:
    """Message → WorkerOutcome."""
    return WorkerOutcome(
        message.queue_s,
        message.prefill_s,
        message.compute_s,
        message.prompt_tokens,
        message.cached_tokens,
        message.output_tokens,
        message.frames,
        message.inference_joules,
        message.idle_joules,
        message.energy_source,
    )


def outcome_to_proto(outcome: Outcome) -> outcome_pb2.Outcome:
    """Outcome → message."""
    return outcome_pb2.Outcome(
        task_id=outcome.task_id,
        arm_id=outcome.arm_id,
        node_id=outcome.node_id,
        status=STATUS_TO_PROTO[outcome.status],
        finished_at_s=outcome.finished_at_s,
        latency_s=outcome.latency_s,
        deadline_s=outcome.deadline_s,
        ttft_s=outcome.ttft_s,
        gateway_s=outcome.gateway_s,
        up_bytes=outcome.up_bytes,
        down_bytes=outcome.down_bytes,
        transmission_joules=outcome.transmission_joules,
        quality=outcome.quality,
        service_class=outcome.service_class,
        error=outcome.error,
        worker=worker_outcome_to_proto(outcome.worker),
    )


def outcome_from_proto(message: outcome_pb2.Outcome) -> Outcome:
    """Message → Outcome. Raises Internal for an unknown status."""
    status = STATUS_FROM_PROTO.get(message.status)
    if status is None:
        raise Internal(f"outcome of task '{message.task_id}' has no status")
    return Outcome(
        task_id=message.task_id,
        arm_id=message.arm_id,
        node_id=message.node_id,
        status=status,
        finished_at_s=message.finished_at_s,
        latency_s=message.latency_s,
        deadline_s=message.deadline_s,
        ttft_s=message.ttft_s,
        gateway_s=message.gateway_s,
        up_bytes=message.up_bytes,
        down_bytes=message.down_bytes,
        transmission_joules=message.transmission_joules,
        quality=message.quality,
        service_class=message.service_class,
        error=message.error,
        worker=worker_outcome_from_proto(message.worker),
    )


def decision_to_proto(record: DecisionRecord) -> outcome_pb2.DecisionRecord:
    """DecisionRecord → message."""
    return outcome_pb2.DecisionRecord(
        task_id=record.task_id,
        decided_at_s=record.decided_at_s,
        policy=record.policy,
        service_class=record.service_class,
        chosen=record.chosen,
        propensity=record.propensity,
        arm_ids=record.arm_ids,
        scores=record.scores,
        features=record.features,
        context=record.context,
    )


def decision_from_proto(message: outcome_pb2.DecisionRecord) -> DecisionRecord:
    """Message → DecisionRecord."""
    return DecisionRecord(
        message.task_id,
        message.decided_at_s,
        message.policy,
        message.service_class,
        message.chosen,
        message.propensity,
        tuple(message.arm_ids),
        tuple(message.scores),
        tuple(message.features),
        message.context,
    )
