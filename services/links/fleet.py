"""All links of an experiment: starts, changes and ends them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from services.links.link import EmulatedLink, ExperimentClock, shape
from services.links.relay import relay
from skyshore.domain.errors import InvalidTask, NotFound, PermissionDenied
from skyshore.domain.node import Link as MeasuredLink
from skyshore.links.capacity import Trace
from skyshore.links.settings import Direction, LinkSettings, Outage, problems
from skyshore.links.shaper import Bucket
from skyshore.links.trace_files import TraceError, parse_trace

MOST_LINKS = 10_000


@dataclass(frozen=True, slots=True)
class RelayAddresses:
    """Where the relay of a link listens and where it connects to, each host:port."""

    listen: str
    target: str


class LinkFleet:
    """Links by name. An async context manager: leaving it ends every relay."""

    def __init__(self, trace_folder: Path, seed: int) -> None:
        self._folder = trace_folder.resolve()
        self._seed = np.random.SeedSequence(seed)
        self._stack = AsyncExitStack()
        self._links: dict[str, tuple[EmulatedLink, RelayAddresses]] = {}
        self._traces: dict[str, Trace] = {}
        self._clock = ExperimentClock()

    async def __aenter__(self) -> LinkFleet:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def now_s(self) -> float:
        """Experiment time."""
        return self._clock.now_s()

    def restart(self, in_s: float = 0.0) -> None:
        """Set experiment time to 0 in `in_s` seconds. All token buckets restart, so traces start with the workload."""
        self._clock.restart(in_s)
        groups = {link.settings.shared for link, _ in self._links.values()}
        for group in groups:
            self._reshape(group)

    async def add(self, name: str, addresses: RelayAddresses, settings: LinkSettings) -> RelayAddresses:
        """Start to relay; returns the addresses with the real port.

        Raises:
            InvalidTask: the name is taken, or the settings are invalid.
            OSError: the address is taken.
        """
        if name in self._links:
            raise InvalidTask(f"a link '{name}' already exists; change it with PUT", param="name")
        if len(self._links) >= MOST_LINKS:
            raise InvalidTask(f"there are {MOST_LINKS} links already, the most that one service keeps", param="name")
        self._check(name, settings)
        link = EmulatedLink(name, settings, *shape(settings, self._traces, self._shared_with(settings)))
        rng = np.random.default_rng(self._seed.spawn(1)[0])
        relaying = relay(link, addresses.listen, addresses.target, self._clock, rng)
        addresses = replace(addresses, listen=await self._stack.enter_async_context(relaying))
        self._links[name] = (link, addresses)
        return addresses

    def change(self, name: str, settings: LinkSettings) -> None:
        """Apply new settings at once. Links that share its uplink get the same rate, trace and outages.

        Raises:
            NotFound: no such link.
            InvalidTask: the settings are invalid.
        """
        link, _ = self.link(name)
        self._check(name, settings, joining=settings.shared != link.settings.shared)
        if not settings.shared:
            link.change(settings, *shape(settings, self._traces))
            return
        link.settings = settings
        for other, _ in self._links.values():
            if other.settings.shared == settings.shared:
                other.settings = _like(other.settings, settings)
        self._reshape(settings.shared)

    def interrupt(self, name: str, seconds: float) -> None:
        """Start an outage of both directions now; planned outages after it stay.

        Raises:
            NotFound: no such link.
            InvalidTask: a duration that is not positive.
        """
        if not seconds > 0:
            raise InvalidTask(f"an outage must last more than 0 s, not {seconds:g}", param="seconds")
        link, _ = self.link(name)
        outage = Outage(self.now_s, self.now_s + seconds)
        up, down = (_with_outage(direction, outage) for direction in (link.settings.up, link.settings.down))
        self.change(name, replace(link.settings, up=up, down=down))

    def link(self, name: str) -> tuple[EmulatedLink, RelayAddresses]:
        """Look one up. Raises NotFound."""
        found = self._links.get(name)
        if found is None:
            raise NotFound(f"no link '{name}'; there are {', '.join(self._links) or 'none'}", param="name")
        return found

    def all(self) -> list[tuple[EmulatedLink, RelayAddresses]]:
        """Every link, in the order they were added."""
        return list(self._links.values())

    def measured(self) -> dict[str, MeasuredLink]:
        """Node id -> its link as measured, for each link on which bytes went in both directions."""
        found = {name: link.measured() for name, (link, _) in self._links.items()}
        return {name: link for name, link in found.items() if link is not None}

    def _reshape(self, group: str) -> None:
        """New shaping for every link of a shared uplink; they share one token bucket per direction."""
        buckets: tuple[Bucket, Bucket] | None = None
        for link, _ in self._links.values():
            if link.settings.shared != group:
                continue
            up, down = shape(link.settings, self._traces, buckets)
            if group:
                buckets = (up.bucket, down.bucket)
            link.change(link.settings, up, down)

    def _shared_with(self, settings: LinkSettings) -> tuple[Bucket, Bucket] | None:
        if settings.shared:
            for link, _ in self._links.values():
                if link.settings.shared == settings.shared:
                    return link.up.bucket, link.down.bucket
        return None

    def _check(self, name: str, settings: LinkSettings, *, joining: bool = True) -> None:
        for word, direction in (("up", settings.up), ("down", settings.down)):
            if found := problems(direction):
                raise InvalidTask(f"link '{name}', {word}: {found[0]}", param=word)
            self._load(direction.trace)
        if not (joining and settings.shared):
            return
        for other, _ in self._links.values():
            shares = other.name != name and other.settings.shared == settings.shared
            if shares and _like(settings, other.settings) != settings:
                raise InvalidTask(
                    f"link '{name}' shares '{settings.shared}' with '{other.name}' but differs in rate, trace or "
                    "outages; give both the same",
                    param="shared",
                )

    def _load(self, name: str) -> None:
        if not name or name in self._traces:
            return
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder):
            raise PermissionDenied(
                f"trace '{name}' lies outside {self._folder}; set SKYSHORE_LINKS_TRACES", param="trace"
            )
        try:
            self._traces[name] = parse_trace(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise NotFound(f"no trace '{name}' in {self._folder}; set SKYSHORE_LINKS_TRACES", param="trace") from error
        except (TraceError, UnicodeDecodeError) as error:
            raise InvalidTask(f"trace '{name}': {error}", param="trace") from error


def _like(settings: LinkSettings, model: LinkSettings) -> LinkSettings:
    """`settings` with the rates, traces and outages of `model`: those belong to the shared uplink."""
    up, down = (
        replace(mine, rate_bytes_per_s=its.rate_bytes_per_s, trace=its.trace, outages=its.outages)
        for mine, its in ((settings.up, model.up), (settings.down, model.down))
    )
    return replace(settings, up=up, down=down)


def _with_outage(direction: Direction, outage: Outage) -> Direction:
    kept = [o for o in direction.outages if o.start_s >= outage.end_s]
    return replace(direction, outages=(outage, *kept))
