"""What a live run taught: a profile for each node, and what the processes around the nodes add to a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from skyshore.nodemodel.document import ProfileError, profile_from_document, profile_to_document
from skyshore.nodemodel.speed import NodeProfile

VERSION = 1


@dataclass(frozen=True, slots=True)
class Overheads:
    """Seconds that no node and no link accounts for; medians of a run."""

    gateway_s: float = 0.003
    """From arrival to dispatch: profiling, deciding, the hops between."""
    request_s: float = 0.0
    """All else on the way to the first token and back: client, gateway, remote calls. Half of it each way."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted figures by node id, with their source."""

    source: str
    overheads: Overheads = Overheads()
    nodes: Mapping[str, NodeProfile] = field(default_factory=dict)


def calibration_to_document(calibration: Calibration) -> dict[str, Any]:
    """What `calibration_from_document` reads."""
    return {
        "calibration": VERSION,
        "source": calibration.source,
        "overheads": asdict(calibration.overheads),
        "nodes": {node_id: profile_to_document(profile) for node_id, profile in calibration.nodes.items()},
    }


def calibration_from_document(document: object) -> Calibration:
    """Check a parsed JSON document. Raises ProfileError."""
    if not isinstance(document, Mapping) or document.get("calibration") != VERSION:
        raise ProfileError(f"not a calibration of version {VERSION}; make it with `skyshore calibrate`")
    try:
        return Calibration(
            source=str(document["source"]),
            overheads=Overheads(**{name: float(value) for name, value in document["overheads"].items()}),
            nodes={str(name): profile_from_document(each) for name, each in document["nodes"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProfileError(f"a damaged calibration ({error}); make it again with `skyshore calibrate`") from error
