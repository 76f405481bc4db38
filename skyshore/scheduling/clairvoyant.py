"""Bounds that no policy can exceed, computed after a run with full knowledge, to measure regret."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skyshore.policies.protocol import Booleans, Floats, Integers

STEPS = 400


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """A run with everything known of it: T tasks, A arms."""

    arrival_s: Floats
    """[T]"""
    deadline_s: Floats
    """[T], from arrival."""
    work_s: Floats
    """[T, A]: true seconds of one slot."""
    link_s: Floats
    """[T, A]: true seconds on the link, both directions."""
    joules: Floats
    """[T, A]: true joules above idle."""
    node: Integers
    """[A]"""
    slots: Floats
    """[nodes]"""

    @property
    def possible(self) -> Booleans:
        """[T, A]: whether the arm would have kept the deadline on an idle node."""
        found: Booleans = self.work_s + self.link_s <= self.deadline_s[:, None]
        return found


def best_fixed_arm(rewards: Floats) -> tuple[int, float]:
    """The single arm with the largest sum of `rewards` [rounds, arms], and that sum."""
    totals = rewards.sum(axis=0)
    return int(totals.argmax()), float(totals.max())


def least_joules(history: History) -> Floats:
    """[T]: least joules of an arm that meets the deadline on an idle node; infinite where there is no such arm.

    No schedule meets a task's deadline with fewer joules.
    """
    cheapest: Floats = np.where(history.possible, history.joules, np.inf).min(axis=1)
    return cheapest


def most_met(history: History, windows_s: tuple[float, ...] = (5.0, 20.0, 60.0)) -> float:
    """Upper bound on how many deadlines any schedule keeps, whatever it knows.

    Energetic relaxation: a task that arrives and is due within a window does all its work in it, so a node's tasks of
    the window hold at most slots × length of work. Tasks may be split between arms and served in pieces. For any
    multipliers μ ≥ 0 of these limits

        Σ μ·limit + Σ_t max(0, max_a 1 − Σ μ·work_ta)

    is such a bound. A projected subgradient descent makes it small. Returns the least bound found.
    """
    inside, length_s = _windows(history, windows_s)
    nodes = len(history.slots)
    limit = length_s[:, None] * history.slots[None, :]  # [windows, nodes]
    possible = history.possible
    prices = np.zeros_like(limit)
    bound = float(possible.any(axis=1).sum())
    per_node = np.arange(nodes)[:, None] == history.node[None, :]
    for step in range(STEPS):
        rate = inside.T @ prices  # [T, nodes]: price of a second of work
        gain = np.where(possible, 1.0 - rate[:, history.node] * history.work_s, -np.inf)
        best = gain.argmax(axis=1)
        taken = gain[np.arange(len(best)), best] > 0
        bound = min(bound, float((prices * limit).sum() + gain.max(axis=1, initial=0.0).sum()))
        used_s = np.where(taken, history.work_s[np.arange(len(best)), best], 0.0)
        used = inside @ (used_s[:, None] * per_node[:, best].T)  # [windows, nodes]
        slope = used - limit
        norm = float((slope * slope).sum())
        if norm == 0:
            break
        prices = np.maximum(prices + 0.5 * bound / (1.0 + 0.05 * step) * slope / norm, 0.0)
    return bound


def _windows(history: History, windows_s: tuple[float, ...]) -> tuple[Floats, Floats]:
    """Which tasks lie wholly inside which window [windows, T], and how long each is. Windows overlap by half."""
    due_s = history.arrival_s + history.deadline_s
    end_s = float(due_s.max(initial=0.0))
    starts, lengths = [0.0], [end_s]
    for length in windows_s:
        begin = np.arange(0.0, max(end_s - length / 2, 0.0), length / 2)
        starts += begin.tolist()
        lengths += [length] * len(begin)
    start, length_s = np.array(starts), np.array(lengths)
    inside = (history.arrival_s >= start[:, None]) & (due_s <= (start + length_s)[:, None])
    return inside.astype(np.float64), length_s
