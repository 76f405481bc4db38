"""The HTTP interface's JSON, checked here and nowhere else."""

from __future__ import annotations

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from services.links.fleet import Ends
from services.links.link import Link
from skyshore.links.settings import Direction, LinkSettings, Outage


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OutageBody(_Strict):
    """Seconds of experiment time."""

    start_s: float
    end_s: float


class DirectionBody(_Strict):
    """See `skyshore.links.settings.Direction`; a rate left out is unlimited."""

    rate_bytes_per_s: float | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    outages: list[OutageBody] = []
    trace: str = ""

    def to_domain(self) -> Direction:
        """As the arithmetic wants it."""
        return Direction(
            rate_bytes_per_s=math.inf if self.rate_bytes_per_s is None else self.rate_bytes_per_s,
            delay_s=self.delay_s,
            jitter_s=self.jitter_s,
            loss=self.loss,
            outages=tuple(Outage(outage.start_s, outage.end_s) for outage in self.outages),
            trace=self.trace,
        )

    @classmethod
    def of(cls, direction: Direction) -> DirectionBody:
        """As JSON shows it."""
        rate = direction.rate_bytes_per_s
        return cls(
            rate_bytes_per_s=None if math.isinf(rate) else rate,
            delay_s=direction.delay_s,
            jitter_s=direction.jitter_s,
            loss=direction.loss,
            outages=[OutageBody(start_s=outage.start_s, end_s=outage.end_s) for outage in direction.outages],
            trace=direction.trace,
        )


class SettingsBody(_Strict):
    """What PUT /links/{name} takes."""

    up: DirectionBody = DirectionBody()
    down: DirectionBody = DirectionBody()
    shared: str = ""
    joules_per_byte: float = Field(default=0.0, ge=0.0)

    def to_domain(self) -> LinkSettings:
        """As the arithmetic wants it."""
        return LinkSettings(self.up.to_domain(), self.down.to_domain(), self.shared, self.joules_per_byte)

    @classmethod
    def of_settings(cls, settings: LinkSettings) -> Self:
        """As JSON shows it."""
        return cls(
            up=DirectionBody.of(settings.up),
            down=DirectionBody.of(settings.down),
            shared=settings.shared,
            joules_per_byte=settings.joules_per_byte,
        )


class NewLinkBody(SettingsBody):
    """What POST /links takes."""

    name: str
    target: str
    """host:port of the node."""
    listen: str = "127.0.0.1:0"
    """host:port to relay from; port 0 takes a free one."""


class MeasuredBody(BaseModel):
    """What the bytes on a link say of it; a rate of 0 means that nothing ever had to wait."""

    up_bytes_per_s: float
    down_bytes_per_s: float
    rtt_s: float


class LinkBody(NewLinkBody):
    """What is shown of a link."""

    connections: int
    up_bytes: int
    down_bytes: int
    measured: MeasuredBody | None = None
    """Missing until bytes went both ways."""

    @classmethod
    def of(cls, link: Link, ends: Ends) -> LinkBody:
        """A link now."""
        found = link.measured()
        return cls(
            **dict(SettingsBody.of_settings(link.settings)),
            name=link.name,
            listen=ends.listen,
            target=ends.target,
            connections=link.passed.connections,
            up_bytes=link.passed.up_bytes,
            down_bytes=link.passed.down_bytes,
            measured=MeasuredBody.model_validate(found, from_attributes=True) if found else None,
        )


class InterruptBody(_Strict):
    """What POST /links/{name}/outage takes."""

    seconds: float


class RestartBody(_Strict):
    """What POST /restart takes, if anything."""

    in_s: float = Field(default=0.0, ge=0.0, le=60.0)
    """Experiment time is 0 after so many seconds."""


class ClockBody(_Strict):
    """Experiment time."""

    now_s: float
