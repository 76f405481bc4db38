"""Records of links: capacities, token buckets, directions and meters, for the kernels of this package."""

from __future__ import annotations

from typing import NamedTuple

from skyshore.rules.records import Floats, Integers, Records, dtype_of

CAPACITY = dtype_of("rate_bytes_per_s length_s total_bytes", "unlimited first_piece pieces first_outage outages")
"""The capacity of a link: `pieces` pieces of a recorded trace from `first_piece` on, which takes `length_s` and carries
`total_bytes` and then starts over; a constant rate where there are none. `unlimited`: sending takes no time."""
PIECE = dtype_of("start_s start_bytes rate_bytes_per_s")
"""A stretch of a trace with one rate. `start_bytes`: carried since the start. One more row marks the end."""
OUTAGE = dtype_of("start_s end_s start_bytes end_bytes")
"""The bytes are those that the capacity without outages could have carried by then."""
BUCKET = dtype_of("tokens at_s seen_bytes")
"""Token bucket: unspent tokens in bytes at `at_s`, negative while what was accepted has not yet left; `seen_bytes` is
what the capacity could have carried by then."""
METER_FIELDS = "mean_delay_s kept_bytes kept_busy_s last_left_s counted_s"
METER = dtype_of(METER_FIELDS)
"""What was measured of one direction: mean delay of small pieces, and bytes and seconds that give the rate."""
DIRECTION = dtype_of(
    f"delay_s jitter_s loss retransmit_s last_s chunk_bytes {METER_FIELDS}", "bucket metered draw_row drawn"
)
"""One direction of a link. `last_s`: latest arrival so far. If `metered`, messages go in pieces of `chunk_bytes`, each
measured. `drawn` random deviates of its row of `Links.draws` are used up."""


class CapacityTables(NamedTuple):
    """Traces and outages of all capacities, one after the other."""

    pieces: Records
    """PIECE."""
    outages: Records
    """OUTAGE, by time."""


class Links(NamedTuple):
    """All directions of all links of a simulation."""

    directions: Records
    """[directions] DIRECTION."""
    buckets: Records
    """[buckets] BUCKET; directions that share one contend for it."""
    capacities: Records
    """[buckets] CAPACITY of each."""
    tables: CapacityTables
    draws: Floats
    """[rows, room] random deviates drawn ahead, in the order in which they are used: of each piece a standard normal
    if there is jitter, then a uniform one if there is loss."""
    low: Integers
    """[1] 1 once a row is half used up: call `draw_ahead` before the next event."""
