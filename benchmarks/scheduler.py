"""`skyshore bench scheduler`: what one decision costs, and what the core around it adds.

Per policy and number of arms: the policy's rule alone on ready-made estimates, in the form that the core uses for so
many arms (plain Python below `MANY_ARMS`, machine code from there on, where numba is installed), and a whole
`TaskArrived` with its `TaskFinished` through the core (eligibility, estimates, rule, reservation, learning). Policies
take turns within every repeat. Beside them two bounds: the same filter and argmin in bare numpy, and, for the bandit
index alone, `mabwiser`'s UCB1 with as many arms, which filters nothing. One core, one thread; the garbage collector is
off while the clock runs.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata

import numpy as np

from benchmarks.result import Aim, BenchResult, Metric
from skyshore.domain.node import Arm, Link, Node, NodeStatus, Tier
from skyshore.domain.outcome import Outcome, OutcomeStatus, WorkerOutcome
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task, TaskKind
from skyshore.policies.kernel_policy import KernelPolicy
from skyshore.policies.protocol import REFUSED, Arms, Context
from skyshore.rules.choose import decide
from skyshore.rules.kernel import can_compile
from skyshore.scheduling.core import MANY_ARMS, CoreSettings, SchedulerCore
from skyshore.scheduling.events import LinkChanged, NodeReported, TaskArrived, TaskFinished

POLICIES = ("least_loaded", "cs_ucb", "skyshore")
AIMS_US = {8: 30.0, 1_000: 80.0, 10_000: 400.0}
REPEATS = 7
TASK = Task("t", TaskKind.LLM, deadline_s=6.0)
PROFILE = TaskProfile(prompt_tokens=700, expected_output_tokens=250.0, input_bytes=3800)


def run() -> BenchResult:
    """Measure; about half a minute."""
    results: list[Metric] = []
    missing: list[str] = []
    for number, aim_us in AIMS_US.items():
        results += _decisions(number, aim_us, missing)
    settings: dict[str, str | int | float | bool | None] = {"policies": ", ".join(POLICIES), "repeats_each": REPEATS}
    return BenchResult("scheduler", settings, REPEATS, tuple(results), tuple(dict.fromkeys(missing)))


def _decisions(number: int, aim_us: float, missing: list[str]) -> list[Metric]:
    calls = 300 if number < 10_000 else 60
    cores = {name: _core(name, number) for name in POLICIES}
    form = "compiled" if cores[POLICIES[0]].fleet.arrays else "plain"
    arms, context = _arms(cores[POLICIES[0]])
    steps: dict[str, Callable[[int], object]] = {"numpy": lambda _: _bare(arms, context)}
    if number < 10_000 and (peer := _mabwiser(number, missing)):
        steps["mabwiser"] = peer
    for name in POLICIES:
        steps[f"select.{name}"] = _select(cores[name])
        steps[f"place.{name}"] = _place(cores[name])
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS):
        for name, step in steps.items():
            samples[name].append(_microseconds(step, 20 if name == "mabwiser" else calls))
    metrics = []
    for name in POLICIES:
        aim = Aim(aim_us) if name != "least_loaded" else None
        select = samples[f"select.{name}"]
        bound = ("bare numpy filter and argmin", samples["numpy"])
        unit, note = "µs", f"{number} arms, {form}, on estimates ready-made"
        metrics.append(
            Metric.of_repeats(
                f"select {name} {number}", select, unit, against=bound[0], against_samples=bound[1], aim=aim, note=note
            )
        )
        place = samples[f"place.{name}"]
        metrics.append(Metric.of_repeats(f"place and end {name} {number}", place, unit, note=f"{number} arms"))
    if "mabwiser" in steps:
        peer_name = f"mabwiser {metadata.version('mabwiser')} UCB1 predict"
        metrics.append(
            Metric.of_repeats(
                f"select cs_ucb {number} beside a bandit library",
                samples["select.cs_ucb"],
                "µs",
                against=peer_name,
                against_samples=samples["mabwiser"],
            )
        )
    return metrics


def _microseconds(step: Callable[[int], object], calls: int) -> float:
    """Median time of a call."""
    taken = np.empty(calls)
    gc.disable()
    try:
        for call in range(calls):
            start_ns = time.perf_counter_ns()
            step(call)
            taken[call] = time.perf_counter_ns() - start_ns
    finally:
        gc.enable()
    return float(np.median(taken)) / 1e3


def _core(policy: str, number: int) -> SchedulerCore:
    """A core with `number` unequal nodes of one arm, a link each, and something learned."""
    core = SchedulerCore(CoreSettings(policy=policy))
    rng = np.random.default_rng(number)
    for index in range(number):
        name = f"n{index}"
        speed = float(rng.uniform(0.5, 2.0))
        arm = Arm(
            f"{name}/m",
            name,
            TaskKind.LLM,
            "m",
            quality=0.7,
            slots=4,
            prefill_tokens_per_s=3000 * speed,
            decode_tokens_per_s=100 * speed,
            context_tokens=8192,
            busy_watts=float(rng.uniform(20, 200)),
        )
        tier = Tier.CLOUD if index % 6 == 5 else Tier.EDGE
        core.handle(NodeReported(0.0, Node(name, tier, "127.0.0.1:1", (arm,)), NodeStatus(name, capacity=64)))
        core.handle(LinkChanged(0.0, name, Link(12.5e6, 25e6, 0.01, 1e-8)))
    if can_compile() and number >= MANY_ARMS:
        core.use_compiled()
    step = _place(core)
    for task in range(2 * number if number < 1_000 else 200):  # so that no shortcut for the unknown is measured
        step(task)
    return core


def _arms(core: SchedulerCore) -> tuple[Arms, Context]:
    """All arms as columns, as a policy in Python sees them."""
    fleet = core.fleet
    return fleet.tables[TaskKind.LLM].options(fleet.options, fleet.arm_count).copy(), Context(1.0, TASK, PROFILE)


def _outcome(task_id: str, arm_id: str, node_id: str) -> Outcome:
    worker = WorkerOutcome(prefill_s=0.2, compute_s=1.5, inference_joules=90.0)
    return Outcome(task_id, arm_id, node_id, OutcomeStatus.OK, 3.0, 1.8, 6.0, worker=worker)


def _select(core: SchedulerCore) -> Callable[[int], object]:
    """The rule of a policy on the estimates that the core made last."""
    fleet, policy = core.fleet, core.policy
    assert isinstance(policy, KernelPolicy), "the policies of this bench are kernels"
    rule, demand = fleet.kernel(decide), core.demand
    return lambda _: rule(policy.state, demand, fleet.options)


def _place(core: SchedulerCore) -> Callable[[int], object]:
    """Arrival after arrival; each is finished at once, because untimed work cannot be left out otherwise."""
    arrivals = iter(range(10_000_000))

    def step(_: int) -> None:
        task_id = f"t{next(arrivals)}"
        (action,) = core.handle(TaskArrived(1.0, replace(TASK, task_id=task_id), PROFILE))
        placement = getattr(action, "placement", None)
        if placement is not None:
            arm = placement.arm
            core.handle(TaskFinished(1.0, _outcome(task_id, arm.arm_id, arm.node_id)))

    return step


def _bare(arms: Arms, context: Context) -> int:
    """The least any filter-and-argmin policy can cost."""
    holds = arms.latency_s <= context.remaining_s
    return int(np.where(holds, arms.joules, np.inf).argmin()) if holds.any() else REFUSED


def _mabwiser(number: int, missing: list[str]) -> Callable[[int], object] | None:
    try:
        from mabwiser.mab import MAB, LearningPolicy  # noqa: PLC0415 - an optional peer
    except ImportError:
        missing.append("mabwiser is not installed: pip install 'mabwiser>=2.7,<3'")
        return None
    peer = MAB(list(range(number)), LearningPolicy.UCB1(alpha=1.0), seed=1)
    peer.fit(list(range(number)), [0.5] * number)
    return lambda _: peer.predict()
