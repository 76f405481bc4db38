"""The fields of a clip's request, and the job that the work stream keeps."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gateway.request_options import MAX_DEADLINE_S
from skyshore.catalogue.detectors import DETECTORS
from skyshore.domain.job import TaskRecord, TaskState
from skyshore.domain.task import Task, TaskKind
from skyshore.nodemodel.clips import CLIP_FRAMES


def _names(given: object) -> object:
    """A form has no lists: split "person, car" at the commas."""
    return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given


ClassName = Annotated[str, Field(min_length=1, max_length=64)]


class ClipFields(BaseModel):
    """Form fields next to the file, or members of the JSON body. Absent options are read from the headers."""

    model_config = ConfigDict(allow_inf_nan=False, str_max_length=4096)

    url: str | None = Field(None, description="file:// URL of a clip in the folder that the server may read")
    model: str = Field("", max_length=256, description="a model of /v1/models; empty lets the policy choose")
    service_class: str | None = Field(None, alias="class", max_length=64)
    deadline_s: float | None = Field(None, ge=0.001, le=MAX_DEADLINE_S, description="seconds allowed")
    min_quality: float | None = Field(None, ge=0, le=1)
    webhook: str | None = Field(None, max_length=2048, description="URL that gets a POST when the task has ended")

    def job_options(self) -> dict[str, Any]:
        """The fields that the job keeps, without the request options."""
        return self.model_dump(exclude={"url", "service_class", "deadline_s", "min_quality", "webhook"})


def _known(names: list[str]) -> list[str]:
    """Refuse a name that no detector finds: the result would be empty without a word."""
    known = {label for detector in DETECTORS.values() for label in detector.labels}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else "the classes are those of COCO, such as person and car"
            raise PydanticCustomError(
                "unknown_class", "no detector finds '{name}'; {hint}", {"name": name, "hint": hint}
            )
    return names


class DetectFields(ClipFields):
    """Fields of a detection request. `deadline_s` applies to each segment."""

    classes: Annotated[list[ClassName], BeforeValidator(_names), AfterValidator(_known)] = Field(
        default_factory=list, max_length=200, description="class names to find; none means all"
    )
    frame_stride: int | None = Field(
        None, ge=1, le=1000, description="use every n-th frame; unset: the stride of the arm"
    )
    min_score: float = Field(0.3, ge=0, le=1)


class ClassifyFields(ClipFields):
    """Fields of a classification request. `deadline_s` counts from the acceptance of the clip."""

    frames: int = Field(CLIP_FRAMES, ge=1, le=64, description="frames to send, evenly spaced over the clip")


class ClipFacts(BaseModel):
    """Properties of a clip, read when it was accepted."""

    model_config = ConfigDict(frozen=True)

    width: int
    height: int
    fps: float
    frame_count: int
    size_bytes: int


class VideoJob(BaseModel):
    """The body of a job in the work stream."""

    model_config = ConfigDict(frozen=True)

    task_id: str
    path: str
    facts: ClipFacts
    created_at_s: float
    model: str
    service_class: str
    deadline_s: float
    min_quality: float
    traceparent: str
    kind: TaskKind = TaskKind.VIDEO_DETECT
    classes: tuple[str, ...] = ()
    frame_stride: int | None = None
    min_score: float = 0.3
    frames: int = CLIP_FRAMES

    def task(self, segment_index: int, origin: str) -> Task:
        """The task of one segment."""
        return Task(
            task_id=f"{self.task_id}-{segment_index}",
            kind=self.kind,
            service_class=self.service_class,
            deadline_s=self.deadline_s,
            min_quality=self.min_quality,
            model=self.model,
            origin=origin,
            job_id=self.task_id,
            traceparent=self.traceparent,
        )

    def record(self) -> TaskRecord:
        """The record of the task when it was accepted."""
        detail = {"path": self.path, "facts": self.facts.model_dump_json()}
        at_s = self.created_at_s
        return TaskRecord(self.task_id, self.kind, TaskState.ACCEPTED, at_s, at_s, detail=detail)
