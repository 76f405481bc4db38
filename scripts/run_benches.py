"""Run every bench, keep its JSON under docs/benchmarks/, and regenerate docs/benchmarks.md from all of them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
COMMAND = (sys.executable, "-m", "cli", "bench")
BENCHES = ("gateway", "scheduler", "llm", "llm_serving", "video", "dsp", "sim", "links")


def run(name: str) -> None:
    """Run one bench through the command a person would use; its JSON is kept only if it ended well."""
    done = subprocess.run(
        [*COMMAND, name, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{name}: failed\n{done.stderr}", file=sys.stderr)
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(json.loads(done.stdout), indent=1) + "\n")
    print(f"{name}: kept")


def number(value: float | None) -> str:
    """Three significant figures, a dash for none."""
    return "–" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def rows(result: dict[str, Any]) -> list[str]:
    """One Markdown row a metric."""
    lines = []
    for metric in result["results"]:
        met = {True: "yes", False: "**no**", None: "–"}[metric["met"]]
        lines.append(
            f"| {metric['metric']} | {number(metric['value'])} ± {number(metric['spread'])} {metric['unit']} "
            f"| {metric['against'] or '–'} | {number(metric['against_value'])} | {number(metric['ratio'])} "
            f"| {metric['aim'] or '–'} | {met} |"
        )
    return lines


def page(results: list[dict[str, Any]]) -> str:
    """The whole page."""
    parts = [
        "# Benchmarks",
        "",
        "Made by `make bench` from the JSON files in `docs/benchmarks/`; never edited by hand. Values are medians",
        "over the repeats named, ± half the distance between their quartiles; a ratio is ours over the peer's in the",
        "same, alternating run. A peer that was missing has no figure and is named.",
    ]
    for result in results:
        parts += [
            "",
            f"## {result['bench']}",
            "",
            f"Version {result['version']}, {result['repeats']} repeats. Host: {json.dumps(result['host'])}.",
            f"Settings: `{json.dumps(result['settings'])}`.",
            "",
            "| metric | value | against | its value | ratio | aim | met |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows(result),
            *(f"\nMissing: {reason}" for reason in result["missing"]),
        ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Run the benches named (all by default) and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(BENCHES)}")
    parser.add_argument("--page-only", action="store_true", help="regenerate the page from the files that are there")
    arguments = parser.parse_args()
    if not arguments.page_only:
        for name in arguments.names or [n for n in BENCHES if (ROOT / "benchmarks" / f"{n}.py").exists()]:
            run(name)
    kept = [RESULTS / f"{name}.json" for name in BENCHES]
    PAGE.write_text(page([json.loads(path.read_text()) for path in kept if path.exists()]))


if __name__ == "__main__":
    main()
