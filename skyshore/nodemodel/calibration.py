"""Figures fitted to a live run: a profile for each node, and the time that other processes add to a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from skyshore.nodemodel.document import ProfileError, profile_from_document, profile_to_document
from skyshore.nodemodel.speed import NodeProfile

VERSION = 1
SPREADS = ("gateway_spread_s", "request_spread_s")


@dataclass(frozen=True, slots=True)
class Overheads:
    """Seconds that no node and no link accounts for; medians of a run, and how they spread."""

    gateway_s: float = 0.003
    """From arrival to dispatch: profiling, deciding, the hops between."""
    request_s: float = 0.0
    """All other time until the first token: client, gateway, remote calls. Half of it in each direction."""
    gateway_spread_s: tuple[float, ...] = ()
    """Evenly spaced quantiles; a simulated request draws one of them. Both spreads are given or none."""
    request_spread_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted figures by node id, with their source."""

    source: str
    overheads: Overheads = Overheads()
    nodes: Mapping[str, NodeProfile] = field(default_factory=dict)
    contention: float = 0.0
    """By which share an iteration of one of `nodes` takes longer for every other of them that is busy meanwhile: they
    were processes of one machine, beside gateway, links and client."""


def calibration_to_document(calibration: Calibration) -> dict[str, Any]:
    """What `calibration_from_document` reads."""
    return {
        "calibration": VERSION,
        "source": calibration.source,
        "overheads": asdict(calibration.overheads),
        "nodes": {node_id: profile_to_document(profile) for node_id, profile in calibration.nodes.items()},
        "contention": calibration.contention,
    }


def calibration_from_document(document: object) -> Calibration:
    """Check a parsed JSON document. Raises ProfileError."""
    if not isinstance(document, Mapping) or document.get("calibration") != VERSION:
        raise ProfileError(f"not a calibration of version {VERSION}; make it with `skyshore calibrate`")
    try:
        return Calibration(
            source=str(document["source"]),
            overheads=_overheads(document["overheads"]),
            nodes={str(name): profile_from_document(each) for name, each in document["nodes"].items()},
            contention=float(document.get("contention", 0.0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProfileError(f"a damaged calibration ({error}); make it again with `skyshore calibrate`") from error


def _overheads(document: Mapping[str, Any]) -> Overheads:
    if unknown := set(document) - {each.name for each in fields(Overheads)}:
        raise ValueError(f"unknown overhead {min(unknown)}")
    spreads = [tuple(float(each) for each in document.get(name, ())) for name in SPREADS]
    if bool(spreads[0]) != bool(spreads[1]):
        raise ValueError("one spread without the other")
    return Overheads(float(document["gateway_s"]), float(document["request_s"]), *spreads)
