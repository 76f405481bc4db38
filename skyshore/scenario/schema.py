"""The schema of a scenario file: nodes, links, classes, workload, policy, faults, seed."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from skyshore.domain.node import Tier
from skyshore.domain.task import SERVICE_CLASSES, ServiceClass, TaskKind
from skyshore.scenario.faults import AnyFault
from skyshore.scenario.fields import Duration, Name, Positive, ScenarioTable, Share
from skyshore.workload.cameras import VideoKind


class NodeTable(ScenarioTable):
    """One node, or `count` equal nodes with the ids `id-1`, `id-2` and so on."""

    id: Name
    tier: Tier
    count: int = Field(default=1, ge=1, le=100_000)
    engine: Literal["onnx", "emulated", "openai"] = "emulated"
    """Engine of a live node; the simulator always uses the node model."""
    profile: str = "xeon-edge"
    """Modelled hardware, or a node profile file beside the scenario."""
    models: tuple[str, ...] = ("smollm2-135m", "ssd-mobilenet")
    slowdown: Annotated[float, Field(ge=1)] = 1.0
    time_scale: Positive = 1.0
    """Emulated nodes: seconds of modelled computation per second of real time. Links keep real time."""
    threads: int = Field(default=1, ge=1)
    """Real engines: threads of each engine."""
    slots: int = Field(default=8, ge=1)
    """Real engines: language-model tasks that are decoded together; for an emulated node, see its profile."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of its nodes."""
        return (self.id,) if self.count == 1 else tuple(f"{self.id}-{i}" for i in range(1, self.count + 1))


class DirectionTable(ScenarioTable):
    """One direction of a link. Without a rate it is unlimited."""

    rate_mbit_s: Positive | None = None
    delay_ms: Duration = 0.0
    jitter_ms: Duration = 0.0
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    trace: str = ""
    """Capacity trace beside the scenario: Mahimahi packet times, or `seconds, Mbit/s` lines."""
    outages_s: tuple[tuple[Duration, Positive], ...] = ()
    """Pairs of start and end, in seconds of experiment time."""


class LinkTable(ScenarioTable):
    """The link of every node whose id is `nodes`, or starts with `nodes` and a dash."""

    nodes: Name
    up: DirectionTable = DirectionTable()
    down: DirectionTable = DirectionTable()
    shared: str = ""
    """Links with the same word share one uplink and its rate."""
    joules_per_mb: Duration = 0.0


class ClassTable(ScenarioTable):
    """A service class; adds to the built-in classes, or replaces one of the same name."""

    name: Name
    deadline_s: Positive
    min_quality: Share = 0.0
    priority: int = 0


class LlmTable(ScenarioTable):
    """A source of language-model requests."""

    arrivals: Literal["poisson", "gamma", "on_off", "diurnal"] = "poisson"
    rate_per_s: Positive
    """Mean over the whole run, for every process."""
    cv: Positive = 2.0
    """`gamma`: coefficient of variation of the gaps."""
    on_s: Positive = 5.0
    off_s: Positive = 10.0
    amplitude: Share = 0.8
    """`diurnal`: relative change around the mean."""
    period_s: Positive = 60.0
    prompt_tokens: Positive = 64
    output_tokens: Positive = 32
    length_cv: Duration = 0.5
    service_class: str = "interactive"
    deadline_range_s: tuple[Positive, Positive] | None = None
    """Each request draws its deadline uniformly from this range (default: the deadline of the class)."""
    origin: str = ""

    @model_validator(mode="after")
    def _range_rises(self) -> LlmTable:
        if self.deadline_range_s is not None and self.deadline_range_s[0] > self.deadline_range_s[1]:
            raise ValueError("deadline_range_s must be the shortest, then the longest deadline")
        return self


class CameraTable(ScenarioTable):
    """`count` equal cameras with different phases."""

    count: int = Field(default=1, ge=1)
    kind: VideoKind = TaskKind.VIDEO_DETECT
    clip: str = "bikes"
    fps: Positive = 5.0
    segment_s: Positive = 2.0
    objects_per_frame: Duration = 2.0
    service_class: str = "standard"
    origin: str = ""

    @model_validator(mode="after")
    def _has_frames(self) -> CameraTable:
        if self.fps * self.segment_s < 1:
            raise ValueError("fps times segment_s must give at least one frame")
        return self


class WorkloadTable(ScenarioTable):
    """A schedule file, or sources from which a schedule is made."""

    schedule: str = ""
    """Schedule file beside the scenario, made by `skyshore traces make`."""
    llm: tuple[LlmTable, ...] = ()
    cameras: tuple[CameraTable, ...] = ()

    @model_validator(mode="after")
    def _one_source(self) -> WorkloadTable:
        if bool(self.schedule) == bool(self.llm or self.cameras):
            raise ValueError("give either a schedule file, or sources ([[workload.llm]], [[workload.cameras]])")
        return self


class Scenario(ScenarioTable):
    """A whole experiment."""

    name: Name
    about: str = ""
    seed: int = Field(default=0, ge=0)
    duration_s: Positive
    policy: Name = "least_loaded"
    calibration: str = ""
    """File beside the scenario, made by `skyshore calibrate`: fitted nodes and overheads for simulations."""
    nodes: tuple[NodeTable, ...] = Field(min_length=1)
    links: tuple[LinkTable, ...] = ()
    classes: tuple[ClassTable, ...] = ()
    workload: WorkloadTable
    faults: tuple[Annotated[AnyFault, Field(discriminator="kind")], ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Scenario:
        ids = [node_id for node in self.nodes for node_id in node.ids]
        twice = [node_id for node_id, times in Counter(ids).items() if times > 1]
        if twice:
            raise ValueError(f"two nodes are called '{twice[0]}'; ids must differ")
        for i, link in enumerate(self.links):
            if not any(_covers(link.nodes, node_id) for node_id in ids):
                raise ValueError(f"links.{i}: no node is called '{link.nodes}'{closest(link.nodes, ids)}")
        for i, fault in enumerate(self.faults):
            if fault.node not in ids:
                raise ValueError(f"faults.{i}: no node is called '{fault.node}'{closest(fault.node, ids)}")
        return self

    @model_validator(mode="after")
    def _classes_exist(self) -> Scenario:
        known = [*SERVICE_CLASSES, *(each.name for each in self.classes)]
        used = [(f"llm.{i}", source.service_class) for i, source in enumerate(self.workload.llm)]
        used += [(f"cameras.{i}", source.service_class) for i, source in enumerate(self.workload.cameras)]
        for where, name in used:
            if name not in known:
                raise ValueError(f"workload.{where}: no service class '{name}'{closest(name, known)}")
        return self

    @property
    def service_classes(self) -> dict[str, ServiceClass]:
        """The built-in classes, with those of this file added or replaced."""
        own = {c.name: ServiceClass(c.name, c.deadline_s, c.min_quality, c.priority) for c in self.classes}
        return SERVICE_CLASSES | own

    def link_of(self, node_id: str) -> LinkTable | None:
        """The last link that covers a node, so that a special link may follow a general one; None if there is none."""
        return next((link for link in reversed(self.links) if _covers(link.nodes, node_id)), None)


def _covers(pattern: str, node_id: str) -> bool:
    return node_id == pattern or node_id.startswith(f"{pattern}-")


def closest(word: str, known: list[str]) -> str:
    """End of a message about an unknown word: the closest known word, or the known words."""
    close = [name for name in known if name.startswith(word)] or difflib.get_close_matches(word, known, 1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(known[:8])}"
