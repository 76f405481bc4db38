"""From the links and outages of a scenario to the settings of the link emulator and of the simulator."""

from __future__ import annotations

import math

from skyshore.links.settings import Direction, LinkSettings, Outage
from skyshore.scenario.effects import CutLink
from skyshore.scenario.faults import effects_of
from skyshore.scenario.schema import DirectionTable, Scenario

MBIT_BYTES = 1e6 / 8
MB_BYTES = 1e6


def link_settings(scenario: Scenario, node_id: str) -> LinkSettings | None:
    """The link of a node with its planned outages; None for a node without a link.

    An outage of one node is an outage of all nodes that share its uplink.
    """
    table = scenario.link_of(node_id)
    outages = _outages(scenario, node_id, table.shared if table else "")
    if table is None:
        return LinkSettings(*(Direction(outages=outages),) * 2) if outages else None
    return LinkSettings(
        up=_direction(table.up, outages),
        down=_direction(table.down, outages),
        shared=table.shared,
        joules_per_byte=table.joules_per_mb / MB_BYTES,
    )


def _outages(scenario: Scenario, node_id: str, shared: str) -> tuple[Outage, ...]:
    found = set()
    for fault in scenario.faults:
        table = scenario.link_of(fault.node)
        shares_uplink = bool(shared) and table is not None and table.shared == shared
        for at_s, cut_node_id, effect in effects_of(fault):
            if isinstance(effect, CutLink) and (cut_node_id == node_id or shares_uplink):
                found.add((at_s, at_s + effect.for_s))
    return tuple(Outage(*each) for each in sorted(found))


def _direction(table: DirectionTable, outages: tuple[Outage, ...]) -> Direction:
    planned = tuple(Outage(start_s, end_s) for start_s, end_s in table.outages_s)
    return Direction(
        rate_bytes_per_s=math.inf if table.rate_mbit_s is None else table.rate_mbit_s * MBIT_BYTES,
        delay_s=table.delay_ms / 1000,
        jitter_s=table.jitter_ms / 1000,
        loss=table.loss,
        outages=tuple(sorted((*planned, *outages), key=lambda outage: outage.start_s)),
        trace=table.trace,
    )
