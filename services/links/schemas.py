"""The JSON of the HTTP interface, validated."""

from __future__ import annotations

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from services.links.fleet import RelayAddresses
from services.links.link import EmulatedLink
from skyshore.links.settings import Direction, LinkSettings, Outage


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OutageBody(_Strict):
    """Seconds of experiment time."""

    start_s: float
    end_s: float


class DirectionBody(_Strict):
    """See `skyshore.links.settings.Direction`. Without a rate, the direction is unlimited."""

    rate_bytes_per_s: float | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    outages: list[OutageBody] = []
    trace: str = ""

    def to_domain(self) -> Direction:
        """The settings as domain values."""
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
        """The JSON form of the settings."""
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
    """Body of PUT /links/{name}."""

    up: DirectionBody = DirectionBody()
    down: DirectionBody = DirectionBody()
    shared: str = ""
    joules_per_byte: float = Field(default=0.0, ge=0.0)

    def to_domain(self) -> LinkSettings:
        """The settings as domain values."""
        return LinkSettings(self.up.to_domain(), self.down.to_domain(), self.shared, self.joules_per_byte)

    @classmethod
    def of_settings(cls, settings: LinkSettings) -> Self:
        """The JSON form of the settings."""
        return cls(
            up=DirectionBody.of(settings.up),
            down=DirectionBody.of(settings.down),
            shared=settings.shared,
            joules_per_byte=settings.joules_per_byte,
        )


class NewLinkBody(SettingsBody):
    """Body of POST /links."""

    name: str
    target: str
    """host:port of the node."""
    listen: str = "127.0.0.1:0"
    """host:port on which the relay listens; port 0 selects a free port."""


class MeasuredBody(BaseModel):
    """What was measured on the bytes of a link. A rate of 0 means that no bytes had to wait yet."""

    up_bytes_per_s: float
    down_bytes_per_s: float
    rtt_s: float


class LinkBody(NewLinkBody):
    """A link with its counters and measurements."""

    connections: int
    up_bytes: int
    down_bytes: int
    measured: MeasuredBody | None = None
    """Missing until bytes went in both directions."""

    @classmethod
    def of(cls, link: EmulatedLink, addresses: RelayAddresses) -> LinkBody:
        """The current state of a link."""
        found = link.measured()
        return cls(
            **dict(SettingsBody.of_settings(link.settings)),
            name=link.name,
            listen=addresses.listen,
            target=addresses.target,
            connections=link.counters.connections,
            up_bytes=link.counters.up_bytes,
            down_bytes=link.counters.down_bytes,
            measured=MeasuredBody.model_validate(found, from_attributes=True) if found else None,
        )


class InterruptBody(_Strict):
    """Body of POST /links/{name}/outage."""

    seconds: float


class RestartBody(_Strict):
    """Body of POST /restart; optional."""

    in_s: float = Field(default=0.0, ge=0.0, le=60.0)
    """Seconds from now at which experiment time is 0."""


class ClockBody(_Strict):
    """Experiment time."""

    now_s: float
