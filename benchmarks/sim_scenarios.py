"""The simulator on shipped scenarios, beside an earlier commit's, in turns.

Run as a program it times one scenario under one policy and prints CPU seconds and requests of each repeat:
`python sim_scenarios.py SCENARIO POLICY FORM REPEATS`. It then knows this simulator and the one before it, which had
a plain engine that all shipped scenarios ran on (`FORM` is `before`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.result import Metric

ROOT = Path(__file__).parents[1]
SCENARIOS = ("papers/cdio", "papers/perllm", "papers/perllm-fluctuating", "demo")
POLICIES = ("least_loaded", "cs_ucb", "skyshore", "cdio", "rewardless_guidance")
IN_PYTHON = ("cdio", "rewardless_guidance")
LEAST_PLAIN = 1 / 1.3
LEAST = {False: 8.0, True: 4.0}
"""Aims, for policies whose rule is a kernel and for those in Python."""
RUNS = 3
"""Simulations in one process; the first, which loads or makes machine code, is not counted."""
BEFORE = "SKYSHORE_BENCH_BEFORE"


def scenarios(repeats: int, missing: list[str]) -> list[Metric]:
    """Requests a second of each scenario and policy, and the ratio to the commit before where one is given."""
    from benchmarks.result import Aim, Metric  # noqa: PLC0415 (an earlier commit runs this file by itself)
    from benchmarks.sim_scale import forms  # noqa: PLC0415

    before = os.environ.get(BEFORE, "")
    if not before:
        missing.append(f"no commit before: set {BEFORE} to its checkout to compare with it")
    metrics: list[Metric] = []
    for scenario in SCENARIOS:
        for policy in POLICIES:
            samples: dict[str, list[float]] = {form: [] for form in (*forms(), *(["before"] if before else []))}
            for _ in range(repeats):
                for form, rates in samples.items():
                    rates.append(_rate(scenario, policy, form, Path(before) if form == "before" else ROOT))
            for form in forms():
                name = f"{form}: {scenario}.toml, {policy}"
                metrics.append(Metric.of_repeats(name, samples[form], "requests/s"))
                if before:
                    ratios = [ours / theirs for ours, theirs in zip(samples[form], samples["before"], strict=True)]
                    aim = Aim(LEAST_PLAIN if form == "plain" else LEAST[policy in IN_PYTHON], "at_least")
                    note = f"requests/s over those of the plain engine in {before}, repeat by repeat"
                    metrics.append(Metric.of_repeats(f"{name}, over before", ratios, "×", aim=aim, note=note))
    return metrics


def _rate(scenario: str, policy: str, form: str, root: Path) -> float:
    path = root / "scenarios" / f"{scenario}.toml"
    command = [sys.executable, __file__, str(path), policy, form]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main(path: Path, policy: str, form: str) -> None:
    """Print the requests per CPU second of the fastest run but the first."""
    rates = [(_before if form == "before" else _now)(path, policy, form) for _ in range(RUNS)]
    print(max(rates[1:]))


def _now(path: Path, policy: str, form: str) -> float:
    from simulator.build import build  # noqa: PLC0415
    from skyshore.scenario import read_scenario  # noqa: PLC0415
    from skyshore.scenario.files import schedule_of  # noqa: PLC0415

    scenario = read_scenario(path.read_text(encoding="utf-8"), str(path)).model_copy(update={"policy": policy})
    schedule, outcomes = schedule_of(scenario, path.parent), list[object]()
    start_s = time.process_time()
    build(scenario, path.parent, arrays=form == "compiled").run(schedule.arrivals, outcomes.append)
    return len(outcomes) / (time.process_time() - start_s)


def _before(path: Path, policy: str, form: str) -> float:
    del form
    schedule_of = import_module("simulator.app").schedule_of

    from simulator.build import build  # noqa: PLC0415
    from simulator.garbage import rare_collections  # noqa: PLC0415
    from skyshore.scenario import read_scenario  # noqa: PLC0415

    scenario = read_scenario(path.read_text(encoding="utf-8"), str(path)).model_copy(update={"policy": policy})
    schedule, outcomes = schedule_of(scenario, path.parent), list[object]()
    start_s = time.process_time()
    simulation = build(scenario, path.parent, outcomes.append)  # type: ignore[call-arg, arg-type]
    with rare_collections():
        simulation.cluster.start(schedule.arrivals)  # type: ignore[attr-defined]
        simulation.timeline.run()  # type: ignore[attr-defined]
    return len(outcomes) / (time.process_time() - start_s)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
