"""`skyshore.links` on arrays: when a message arrives, and what its bytes tell of the link."""

from __future__ import annotations

from simulator.compiled.jit import compiled
from simulator.compiled.layout import Fleet, Record, Run
from skyshore.links.meter import LEAST_WAIT_S, SMALL_BYTES, fade, mean_delay_s
from skyshore.links.shaper import pour

_fade, _mean_delay_s, _pour = compiled(fade), compiled(mean_delay_s), compiled(pour)


@compiled
def deliver(run: Run, fleet: Fleet, number: int, now_s: float, size_bytes: float) -> float:
    """When a message handed over at `now_s` is readable at the far end."""
    way = fleet.ways[number]
    bucket = fleet.buckets[way.bucket]
    if not way.metered:
        return _arrive(run, fleet, number, _depart(bucket, now_s, size_bytes))
    rest, arrived_s = size_bytes, now_s
    while rest > 0:
        piece = min(rest, float(way.chunk_bytes))
        left_s = _depart(bucket, now_s, piece)
        arrived_s = _arrive(run, fleet, number, left_s)
        _observe(way, now_s, left_s, arrived_s, piece)
        rest -= piece
    return arrived_s


@compiled
def _depart(bucket: Record, now_s: float, size_bytes: float) -> float:
    if bucket.unlimited:
        return now_s
    carried = bucket.rate * now_s
    bucket.tokens = _pour(bucket.tokens, carried - bucket.seen, now_s - bucket.at_s, size_bytes)
    bucket.at_s, bucket.seen = now_s, carried
    return float(max(now_s, (carried + max(1.0, -bucket.tokens)) / bucket.rate))


@compiled
def _arrive(run: Run, fleet: Fleet, number: int, departed_s: float) -> float:
    way = fleet.ways[number]
    delay_s = way.delay_s
    if way.jitter_s:
        if way.drawn >= fleet.draws.shape[1]:
            raise OverflowError("one message took more deviates than are drawn ahead; use the plain engine")
        delay_s = max(0.0, delay_s + way.jitter_s * fleet.draws[number, way.drawn])
        way.drawn += 1
        if way.drawn + way.margin > fleet.draws.shape[1]:
            run.clock[0].starved = 1
    way.last_s = max(way.last_s, departed_s + delay_s)
    return float(way.last_s)


@compiled
def _observe(way: Record, entered_s: float, left_s: float, arrived_s: float, size_bytes: float) -> None:
    if size_bytes <= SMALL_BYTES:
        way.meter_delay_s = _mean_delay_s(way.meter_delay_s, arrived_s - entered_s)
    before_s = way.meter_left_s
    way.meter_left_s = left_s
    if entered_s + LEAST_WAIT_S < before_s < left_s:
        keep = _fade(left_s - way.meter_counted_s)
        way.meter_bytes = keep * way.meter_bytes + size_bytes
        way.meter_busy_s = keep * way.meter_busy_s + left_s - before_s
        way.meter_counted_s = left_s
