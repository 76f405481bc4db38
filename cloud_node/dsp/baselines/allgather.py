"""The switch as all-gather and slice, as DTensor does it on a CPU mesh (torch 2.13): N times the bytes."""

from __future__ import annotations

from cloud_node.classify.model import SPACE, TIME, Block
from cloud_node.dsp.layout import Layout
from cloud_node.dsp.switch import Sharded, gather, split
from cloud_node.dsp.transports.port import Transport


class AllGatherSwitch:
    """DSP's layouts with the wrong collective."""

    def __init__(self, blocks: list[Block], shape: tuple[int, ...], transport: Transport) -> None:
        self._blocks, self._transport = blocks, transport
        self.start = Layout(shape).cut(TIME, transport.size)

    def __call__(self, x: Sharded) -> Sharded:
        """One forward; ends in the layout it started from, as a loop needs."""
        start = x.layout.dim or 0
        for block in self._blocks:
            if x.layout.dim == block.axis:
                x = split(gather(x, self._transport), SPACE if block.axis == TIME else TIME, self._transport)
            x = x.like(block(x.local))
        return x if x.layout.dim == start else split(gather(x, self._transport), start, self._transport)
