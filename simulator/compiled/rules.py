"""The policies that take part: each one's rule over scores, with the policy's own formulas, compiled."""

from __future__ import annotations

import math

import numpy as np

from simulator.compiled.jit import compiled
from simulator.compiled.layout import JOULES, LATENCY_S, NONE, OK, REWARD_WINDOW, SLACK, Fleet, Mind, Record
from skyshore.policies.cs_ucb import confidence_index
from skyshore.profiling.reward import common_reward, measured_slack, quantile

_confidence_index, _quantile = compiled(confidence_index), compiled(quantile)
_common_reward, _measured_slack = compiled(common_reward), compiled(measured_slack)

LEAST_LOADED, CS_UCB, ROUND_ROBIN, SHORTEST_DELAY, GREEDY_ENERGY = range(5)
LARGEST_SLACK, MOST_ROOM, REJECT = range(3)
"""What `cs_ucb` does when nothing holds, in the order of its `INFEASIBLE`."""


@compiled
def choose(fleet: Fleet, mind: Mind, task: Record, count: int) -> tuple[int, int]:
    """Index among the open arms, or NONE, and among how many equals it was drawn."""
    rule = mind.rule[0]
    if rule.name == ROUND_ROBIN:
        return _next(mind, task.table, count), 1
    if rule.name == SHORTEST_DELAY:
        return _least(mind, LATENCY_S, count), 1
    if rule.name == GREEDY_ENERGY:
        return _least(mind, JOULES, count), 1
    if rule.name == LEAST_LOADED:
        _score_room(fleet, mind, count)
        return _draw_best(mind, count)
    return _constrained(fleet, mind, task, count)


@compiled
def _next(mind: Mind, table: int, count: int) -> int:
    chosen = 0
    for index in range(count):
        if mind.rows[index] > mind.last[table]:
            chosen = index
            break
    mind.last[table] = mind.rows[chosen]
    return chosen


@compiled
def _least(mind: Mind, column: int, count: int) -> int:
    chosen = 0
    for index in range(1, count):
        if mind.estimates[index, column] < mind.estimates[chosen, column]:
            chosen = index
    return chosen


@compiled
def _score_room(fleet: Fleet, mind: Mind, count: int) -> None:
    for index in range(count):
        node = fleet.nodes[fleet.arms[mind.rows[index]].node]
        mind.scores[index] = -(node.own + node.foreign) / node.capacity


@compiled
def _draw_best(mind: Mind, count: int) -> tuple[int, int]:
    """`best.draw_best`."""
    top, ties = mind.scores[0], 1
    first = 0
    for index in range(1, count):
        score = mind.scores[index]
        if score > top:
            top, ties, first = score, 1, index
        elif score == top:
            ties += 1
    if ties == 1:
        return first, 1
    skip = mind.rng.integers(0, ties)
    for index in range(first, count):
        if mind.scores[index] == top:
            if skip == 0:
                return index, ties
            skip -= 1
    return NONE, ties


@compiled
def _constrained(fleet: Fleet, mind: Mind, task: Record, count: int) -> tuple[int, int]:
    """`CsUcb.select`."""
    rule, some_hold = mind.rule[0], False
    total = mind.totals[task.service_class, task.table]
    log_total = max(math.log(total), 0.0) if total > 0 else 0.0
    for index in range(count):
        arm, estimate = mind.rows[index], mind.estimates[index]
        slack, pulls = estimate[SLACK], mind.counts[task.service_class, arm]
        if not rule.explore:
            score = -estimate[JOULES]
        elif pulls > 0:
            mean = mind.sums[task.service_class, arm] / max(pulls, 1e-12)
            score = _confidence_index(mean, pulls, log_total, slack, rule.delta, rule.theta)
        else:
            score = math.inf
        some_hold = some_hold or slack >= 0
        mind.scores[index] = -math.inf if rule.constrain and slack < 0 else score
    if rule.constrain and not some_hold:
        if rule.infeasible == REJECT:
            return NONE, 1
        if rule.infeasible == MOST_ROOM:
            _score_room(fleet, mind, count)
        else:
            for index in range(count):
                mind.scores[index] = mind.estimates[index, SLACK]
    return _draw_best(mind, count)


@compiled
def learn(fleet: Fleet, mind: Mind, task: Record) -> None:
    """`RewardModel.reward` and `ClassStatistics.learn`."""
    rule, table, group = mind.rule[0], task.table, task.service_class
    if rule.name != CS_UCB:
        return
    joules = task.transmission_joules + task.inference_joules + task.idle_joules
    if task.status == OK and joules > 0:
        _observe_joules(mind, table, joules)
    slack = _measured_slack(task.status == OK, task.latency_s, task.deadline_s, task.slack)
    reward = _common_reward(joules, mind.rewards[table].value, slack, rule.reward_weight)
    for arm in range(fleet.tables[table], fleet.tables[table + 1]):
        mind.counts[group, arm] *= rule.discount
        mind.sums[group, arm] *= rule.discount
    mind.counts[group, task.arm] += 1.0
    mind.sums[group, task.arm] += reward
    mind.totals[group, table] = mind.totals[group, table] * rule.discount + 1.0


@compiled
def _observe_joules(mind: Mind, table: int, joules: float) -> None:
    yardstick, stride = mind.rewards[table], REWARD_WINDOW // 8
    mind.joules[table, yardstick.seen % REWARD_WINDOW] = joules
    yardstick.seen += 1
    if yardstick.seen < stride or yardstick.seen % stride == 0:
        known = min(yardstick.seen, REWARD_WINDOW)
        value = _quantile(np.sort(mind.joules[table, :known]), 0.95)
        yardstick.value = value if value != 0.0 else 1.0
