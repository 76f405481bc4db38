"""`skyshore` on CDIO's cameras: an uplink that comes and goes, two engines on every node. Virtual time, so exact.

docs/papers.md has the figures over twenty seeds; this holds the aim at saturation on one.
"""

from functools import cache
from pathlib import Path

import pytest

from experiments.plan.cell import Cell
from experiments.run.simulated import run_simulated

CDIO = Path(__file__).parents[2] / "scenarios" / "papers" / "cdio.toml"


@cache
def figures(policy: str, load: float = 1.0) -> tuple[float, float]:
    """Share of deadlines met, and joules of the whole fleet over those."""
    found = run_simulated(Cell(CDIO, policy, seed=101, load=load)).figures
    met, joules = found["attainment"], found["fleet_joules_per_met"]
    assert met is not None
    assert joules is not None
    return met, joules


@pytest.mark.parametrize("rival", ["least_loaded", "cs_ucb", "cs_ucb.filter_only"])
def test_at_saturation_more_deadlines_for_a_tenth_fewer_joules(rival):
    met, joules = figures("skyshore")
    their_met, their_joules = figures(rival)
    assert met > their_met
    assert joules < 0.9 * their_joules


def test_at_half_load_nearly_all_is_met_and_hardly_more_drawn_than_by_nodes_that_idle():
    """Idle power is 95 % of all power here. A policy can save joules only by avoiding expensive engines."""
    met, joules = figures("skyshore", 0.5)
    assert met > 0.99
    assert joules < 1.1 * 120.0 / (50.0 * met)
