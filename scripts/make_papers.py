"""`make papers`: simulates the papers' scenarios and writes docs/benchmarks/papers.json and docs/papers.md from it.

Cells that are there already (same inputs, same sources) are not run again; Ctrl-C keeps them, and `--gather` writes the
page from those. `--live` adds what `skyshore compare --driver live` left in a bundle. `--quick` is for tests.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from cli.sweep_bars import SweepBars  # noqa: E402
from experiments.figures.comparison import Group, compare  # noqa: E402
from experiments.plan.bundle import Bundle  # noqa: E402
from experiments.plan.cell import (  # noqa: E402
    ORACLE_SCHEDULE,
    Cell,
    CellResult,
    Figures,
    plan,
)
from experiments.plan.experiment import Experiment  # noqa: E402
from experiments.plan.inputs import Inputs  # noqa: E402
from experiments.report.tables import REGRETS  # noqa: E402
from experiments.run.bounds import met_bound  # noqa: E402
from experiments.run.processes import run_in_processes  # noqa: E402
from experiments.run.sweep import Sweep, finish, pending, run_cells  # noqa: E402
from scripts.papers_page import page  # noqa: E402
from skyshore.policies.registry import POLICIES  # noqa: E402
from skyshore.report.load_audit import Verdict  # noqa: E402
from skyshore.report.statistics import mean_interval  # noqa: E402

FOLDER = ROOT / "scenarios" / "papers"
FIRST_SEED = 4001
"""The policies' settings were chosen on seeds below these."""
SEEDS, QUICK_SEEDS = 20, 2
COMMON = ("least_loaded", "shortest_delay", "cs_ucb", "cs_ucb.filter_only", "skyshore", "skyshore.serve_all")
RIVALS = ("least_loaded", "cs_ucb", "cs_ucb.filter_only")
"""Baselines that `skyshore` is compared with."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One scenario and what is run on it."""

    scenario: str
    method: str
    """The paper's own policy."""
    baselines: tuple[str, ...]
    """The paper's baselines, as ported here; what this installation lacks is left out and named."""
    others: tuple[str, ...]
    loads: tuple[float, ...]

    def policies(self, *, brief: bool) -> tuple[str, ...]:
        """All of them, each once; `brief` leaves out what only explains the others."""
        rest = (*RIVALS, "skyshore") if brief else (*COMMON, *self.others)
        return tuple(name for name in dict.fromkeys((self.method, *self.baselines, *rest)) if name in POLICIES)


RECIPES = (
    Recipe(
        "perllm",
        "cs_ucb",
        ("fine_infer", "agod", "rewardless_guidance"),
        ("cs_ucb.ucb_only", "cs_ucb.reject", "linucb.filtered", "primal_dual"),
        (0.5, 1.0, 1.5),
    ),
    Recipe("perllm-fluctuating", "cs_ucb", ("fine_infer", "agod", "rewardless_guidance"), (), (1.0,)),
    Recipe(
        "cdio",
        "cdio",
        ("jcab", "a2", "dds"),
        ("cdio.no_lstm", "cdio.no_bandit", "cloud_only", "edge_only"),
        (0.5, 1.0, 1.5),
    ),
)
PARTS = ("transmission_joules", "inference_joules", "idle_joules")
FIGURES = (
    *(
        "attainment",
        "goodput_per_s",
        "output_tokens_per_s",
        "frames_per_s",
        "fleet_joules_per_met",
        "joules_per_request",
    ),
    *(f"{name}_per_request" for name in PARTS),
    *("fleet_joules", "link_bytes_per_request", "compute_s_per_request", "quality", "requests", "answered"),
    *("deadline_violations", "quality_violations", "rejected", "expired", "failed", "edge_share", *REGRETS),
)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    options = _options(arguments)
    if options.render:
        content = json.loads(options.json.read_text(encoding="utf-8"))
    else:
        content = make(options)
        if content is None:
            return 130
        if options.live:
            content["live"] = live(options.live)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    options.page.write_text(page(content), encoding="utf-8")
    print(f"{options.json}\n{options.page}")
    return 1 if content["failed_cells"] else 0


def make(options: argparse.Namespace) -> dict[str, Any] | None:
    """Run all recipes and gather the figures; None after Ctrl-C."""
    started_s = time.perf_counter()
    found, failed, code, brief = [], 0, {}, False
    for recipe in RECIPES:
        if options.gather and not (options.out / recipe.scenario).exists():
            continue
        bundle = Bundle.read(options.out / recipe.scenario) if options.gather else _begun(recipe, options)
        if not options.gather:
            swept = _run(bundle, options.jobs)
            if swept.interrupted:
                return None
            failed += len(swept.failures)
        found.append(_gathered(recipe, bundle))
        code = bundle.description()["code"]
        brief |= len(bundle.experiment.policies) < len(recipe.policies(brief=False))
    return {
        "command": "python scripts/make_papers.py --brief" if brief else "make papers",
        "brief": brief,
        "code": code,
        "failed_cells": failed,
        "wall_s": round(time.perf_counter() - started_s, 1),
        "scenarios": found,
    }


def live(folder: Path) -> dict[str, Any]:
    """Figures of live runs, of the seeds on which every policy kept its schedule: pairs stay pairs."""
    bundle = Bundle.read(folder)
    experiment, scenario, results = bundle.experiment, bundle.experiment.inputs.parse(), bundle.results()
    invalid = {each.cell.name for each in results if _is(each, Verdict.INVALID)}
    kept = _whole(bundle, [each for each in results if each.cell.name not in invalid])
    bounds = {seed: _live_bound(bundle, seed) for seed in {each.cell.seed for each in kept}}
    kept = [replace(each, figures=_completed(each.figures, bounds[each.cell.seed])) for each in kept]
    groups = compare(kept, experiment.policies, experiment.reference)
    seeds = sorted({each.cell.seed for each in kept})
    return {
        "scenario": scenario.name,
        "duration_s": scenario.duration_s,
        "code": bundle.description()["code"],
        "seeds": seeds,
        "runs": len(results),
        "invalid": len(invalid),
        "kept": len(kept),
        "degraded": sum(_is(each, Verdict.DEGRADED) for each in kept),
        "provenance": sorted({group.provenance for group in groups}),
        "bound": _interval([bounds[seed] for seed in seeds]),
        "policies": [_row(group) for group in groups],
        "skyshore_over": _paired(groups, "skyshore", RIVALS),
    }


def _is(result: CellResult, verdict: Verdict) -> bool:
    return any(note.startswith(verdict) for note in result.notes)


def _live_bound(bundle: Bundle, seed: int) -> float:
    planned = plan(Cell(bundle.scenario, "random", seed))
    return met_bound(planned) / max(len(planned.schedule.arrivals), 1)


def _completed(figures: Figures, bound: float) -> Figures:
    """With regret against a share of deadlines that nobody could have exceeded; a live run has no other reference.

    Some figures a request follow from their totals, which is all that older bundles have.
    """
    met, due, answered = figures["attainment"] or 0.0, figures["requests"] or 1.0, figures["answered"] or 1.0
    found = {f"{name}_per_request": (figures[name] or 0.0) / answered for name in PARTS}
    found |= {"compute_s_per_request": (figures["compute_s"] or 0.0) / due, "deadline_violations": due * (1 - met)}
    return {**figures, **found, "regret_bound": bound - met}


def _whole(bundle: Bundle, results: Sequence[CellResult]) -> list[CellResult]:
    """Of every load only the seeds that all have."""
    ran = Counter((each.cell.load, each.cell.seed) for each in results if each.complete)
    wanted = Counter((job.cell.load, job.cell.seed) for job in bundle.jobs())
    return [each for each in results if ran[each.cell.load, each.cell.seed] == wanted[each.cell.load, each.cell.seed]]


def _begun(recipe: Recipe, options: argparse.Namespace) -> Bundle:
    inputs = Inputs.read(FOLDER / f"{recipe.scenario}.toml")
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + options.seeds))
    policies, loads = recipe.policies(brief=options.brief), (1.0,) if options.quick else recipe.loads
    experiment = Experiment(inputs, policies, seeds, loads, baseline=recipe.method, rows=False, bound=True)
    return Bundle.begin(options.out / recipe.scenario, experiment)


def _run(bundle: Bundle, jobs: int) -> Sweep:
    done = len(bundle.jobs()) - len(pending(bundle))
    with SweepBars(Console(stderr=True), len(bundle.jobs()), done) as bars:
        swept = run_cells(bundle, lambda work, scratch: run_in_processes(work, scratch, jobs), bars.show)
    for name, reason in swept.failures.items():
        print(f"{name} failed: {reason.strip().splitlines()[-1]}", file=sys.stderr)
    finish(bundle, swept.failures)
    return swept


def _gathered(recipe: Recipe, bundle: Bundle) -> dict[str, Any]:
    experiment = bundle.experiment
    groups = compare(_whole(bundle, bundle.results()), experiment.contestants, experiment.reference)
    at_loads = []
    for load in experiment.loads:
        own = [group for group in groups if group.load == load]
        seeds = sorted({result.cell.seed for group in own for result in group.results})
        rows = [_row(group) for group in own]
        at_loads.append({"load": load, "seeds": seeds, "bound": _bound(own), "policies": rows, **_held(recipe, own)})
    missing = [name for name in recipe.baselines if name not in POLICIES]
    return {
        "scenario": recipe.scenario,
        "method": recipe.method,
        "baselines": [name for name in recipe.baselines if name in POLICIES],
        "missing": missing,
        "loads": at_loads,
    }


def _bound(groups: Sequence[Group]) -> dict[str, float | None]:
    """Share of deadlines that nobody could have exceeded."""
    shares = [
        bound / (result.figures["requests"] or 1)
        for group in groups
        if group.policy == ORACLE_SCHEDULE
        for result in group.results
        if (bound := result.figures["met_bound"]) is not None
    ]
    return _interval(shares)


def _row(group: Group) -> dict[str, Any]:
    figures = {name: _interval(list(group.figures[name].values.values())) for name in FIGURES if name in group.figures}
    return {"policy": group.policy, "figures": figures}


def _held(recipe: Recipe, groups: Sequence[Group]) -> dict[str, Any]:
    """Paired ratios: the paper's method over its baselines, `skyshore` over its rivals."""
    versus, rivals = _paired(groups, recipe.method, recipe.baselines), _paired(groups, "skyshore", RIVALS)
    return {"method_over": versus, "skyshore_over": rivals}


def _paired(groups: Sequence[Group], ours: str, theirs: Sequence[str]) -> dict[str, Any]:
    by_name = {group.policy: group for group in groups}
    first = by_name.get(ours)
    return {name: dict(_ratios(first, by_name[name])) for name in theirs if first is not None and name in by_name}


def _ratios(ours: Group, theirs: Group) -> Iterator[tuple[str, Any]]:
    per_request = ("compute_s_per_request", "joules_per_request", "link_bytes_per_request")
    names = ("goodput_per_s", "output_tokens_per_s", "frames_per_s", "fleet_joules_per_met", *per_request)
    for name in names:
        first, second = ours.figures.get(name), theirs.figures.get(name)
        if first is None or second is None:
            continue
        shared = [seed for seed in first.values if second.values.get(seed, 0) > 0]
        if shared:
            yield name, _interval([first.values[seed] / second.values[seed] for seed in shared])
    met = (ours.figures["attainment"].values, theirs.figures["attainment"].values)
    yield "attainment_difference", _interval([met[0][seed] - met[1][seed] for seed in met[0] if seed in met[1]])


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and its 95 % interval; None where there is none."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return {"mean": None, "low": None, "high": None}
    low, high = mean_interval(finite, np.random.default_rng(0)) if len(finite) > 1 else (np.nan, np.nan)
    found = {"mean": float(np.mean(finite)), "low": float(low), "high": float(high)}
    return {name: round(value, 6) if np.isfinite(value) else None for name, value in found.items()}


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Simulate the papers' scenarios and write docs/papers.md.")
    parser.add_argument("--quick", action="store_true", help="two seeds at load 1")
    parser.add_argument("--brief", action="store_true", help="without ablations and the rest of the policies")
    parser.add_argument("--gather", action="store_true", help="run nothing; write the page from finished cells")
    parser.add_argument("--live", type=Path, help="bundle of live runs of perllm-live.toml to add")
    parser.add_argument("--seeds", type=int, default=0, help=f"paired seeds; {SEEDS} by default")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="cells at the same time")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "papers", help="where cells are kept")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "benchmarks" / "papers.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "papers.md")
    parser.add_argument("--render", action="store_true", help="only write the page from the JSON")
    options = parser.parse_args(arguments)
    options.seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
