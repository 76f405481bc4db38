"""JCAB: joint configuration adaptation and bandwidth allocation, by Lyapunov drift and Markov approximation.

Ports: Wang et al., "Joint configuration adaptation and bandwidth allocation for edge-based real-time video analytics"
(INFOCOM 2020). We did not have the paper; this follows summaries of it (digest 2.5). The policy trades accuracy
against energy and keeps the mean delay within a bound. A virtual queue Q sums the excess over the bound. Each slot
maximises

    V·(accuracy − w·E / Ē) − Q·(delay / allowed),

A Markov chain makes the discrete choice: it moves one task at a time to arm a with a probability ∝ e^{β·value}. Tasks
share the bandwidth B of a link in proportion to √bytes, which minimises the slot's sum of transmission times. A task of
d_i bytes among others of d_j bytes then takes √d_i·Σ√d_j / B seconds.

Our choices: V = 1, w = 0.2, β = 20, a bound of 0.8 of the deadline. The chain makes two passes over the slot's tasks,
and `select` makes the third. The arms (model, input size, stride, encoding) are the configurations. Left out: setting
the rate of each stream. The links here do not follow the split; the policy only assumes it in its estimates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skyshore.domain.task import TaskKind
from skyshore.policies.protocol import Arms, Context, Decision, Feedback, Floats, Policy

PASSES = 2
BOUND = 0.8
"""Mean share of the deadline that the virtual queue allows."""
MOST_QUEUE = 20.0
STEP = 0.3
SMOOTHING = 0.02
LATEST = 4.0
"""Delays count up to this many deadlines."""


class Jcab(Policy):
    """One virtual queue per kind of task; the chain moves all arrivals of a slot."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        tradeoff: float = 1.0,
        energy_weight: float = 0.2,
        beta: float = 20.0,
        slot_s: float = 0.05,
    ) -> None:
        """`tradeoff` is V, `energy_weight` w, `beta` the chain's inverse temperature."""
        self.slot_s = slot_s
        self._rng = rng
        self._tradeoff, self._energy_weight, self._beta = tradeoff, energy_weight, beta
        self._queue = dict.fromkeys(TaskKind, 0.0)
        self._mean_joules = dict.fromkeys(TaskKind, 0.0)
        self._choices: dict[str, tuple[int, float]] = {}
        """Tasks of the slot that is being placed: task id → the node where the chain has put it, and √bytes."""

    def plan(self, contexts: Sequence[Context], options: Sequence[Arms]) -> None:
        """Make `PASSES` passes of the chain over all tasks of the slot."""
        self._choices = {}
        for _ in range(PASSES):
            for context, arms in zip(contexts, options, strict=True):
                index, _, _ = self._move(context, arms)
                self._note_choice(context, arms, index)

    def select(self, context: Context, arms: Arms) -> Decision:
        """Make the chain's next move for this task; its probability is the propensity."""
        planned = context.task.task_id in self._choices
        index, chances, values = self._move(context, arms)
        if planned:
            self._note_choice(context, arms, index)
        return Decision(index, float(chances[index]), values)

    def update(self, feedback: Feedback) -> None:
        """Update the virtual queue and the mean joules."""
        kind, outcome = feedback.context.task.kind, feedback.outcome
        over = min(outcome.latency_s / outcome.deadline_s, LATEST) - BOUND
        self._queue[kind] = min(max(self._queue[kind] + STEP * over, 0.0), MOST_QUEUE)
        before = self._mean_joules[kind]
        self._mean_joules[kind] = before + SMOOTHING * (outcome.joules - before) if before else outcome.joules

    def _move(self, context: Context, arms: Arms) -> tuple[int, Floats, Floats]:
        self._choices.pop(context.task.task_id, None)
        values = self._values(context, arms)
        weights = np.exp(self._beta * (values - values.max()))
        chances: Floats = weights / weights.sum()
        return int(self._rng.choice(len(arms), p=chances)), chances, values

    def _note_choice(self, context: Context, arms: Arms, index: int) -> None:
        self._choices[context.task.task_id] = int(arms.node[index]), float(np.sqrt(arms.up_bytes[index]))

    def _values(self, context: Context, arms: Arms) -> Floats:
        kind, allowed_s = context.task.kind, max(context.remaining_s, 1e-3)
        shared = np.zeros(len(arms))
        company = np.zeros(len(arms))
        for node, root in self._choices.values():
            shared += np.where(arms.node == node, root, 0.0)
            company += arms.node == node
        crowd_s = np.sqrt(arms.up_bytes) * shared / arms.up_bytes_per_s + company * arms.service_s / arms.slots
        delay = np.minimum((arms.latency_s + crowd_s) / allowed_s, LATEST)
        mean_joules = self._mean_joules[kind] or float(arms.joules.mean()) or 1.0
        accuracy = np.where(delay <= 1.0, arms.quality, 0.0)  # a late answer has no value
        worth = self._tradeoff * (accuracy - self._energy_weight * arms.joules / mean_joules)
        return np.asarray(worth - self._queue[kind] * delay, np.float64)
