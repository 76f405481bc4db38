"""Regenerate the tables of docs/llm.md from the JSON files its commands keep in docs/benchmarks/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "benchmarks"
PAGE = ROOT / "docs" / "llm.md"
MISSING = "No result is kept yet; the command above makes it."


def precisions(result: dict[str, Any]) -> str:
    """One row a precision."""
    cells = result["precisions"][0]["cells"]
    titles = [f"prefill {c['context']}" if c["kind"] == "prefill" else f"{c['batch']} × @{c['context']}" for c in cells]
    columns = ["precision", "MB", "perplexity", "agreement", *titles, "J/token prefill", "decode"]
    lines = [f"| {' | '.join(columns)} |", f"| --- |{' --: |' * (len(columns) - 1)}"]
    for each in result["precisions"]:
        quality, rates = each["quality"], [f"{cell['tokens_per_s']:.0f}" for cell in each["cells"]]
        joules = [f"{_mean_joules(each['cells'], kind):.3f}" for kind in ("prefill", "decode")]
        row = [each["precision"], f"{each['weight_bytes'] / 1e6:.0f}", f"{quality['perplexity']:.2f}"]
        row += [f"{quality['agreement']:.3f}", *rates, *joules]
        lines.append(f"| {' | '.join(row)} |")
    text = result["text"]
    return "\n".join(
        [
            *lines,
            "",
            f"Tokens per second, {result['threads']} thread(s), {result['host']['cpu']}, load average at the end "
            f"{result['host']['load_average_1m']}; `8 × @128`: eight rows that hold 128 tokens each.",
            f"Joules above idle, {result['precisions'][0]['energy_source']}. Perplexity over {text['tokens']} tokens "
            f"in windows of {text['window']}: {text['source']}.",
        ]
    )


def _mean_joules(cells: list[dict[str, Any]], kind: str) -> float:
    spent = [cell["joules_per_token"] for cell in cells if cell["kind"] == kind]
    return sum(spent) / len(spent)


def bench(result: dict[str, Any]) -> str:
    """One row a metric that has a peer, a bound or an aim."""
    lines = ["| metric | ours | against | its value | ratio | aim met |", "| --- | --: | --- | --: | --: | --- |"]
    for metric in result["results"]:
        if metric["against_value"] is None and metric["aim"] is None:
            continue
        theirs = "–" if metric["against_value"] is None else f"{metric['against_value']:.4g}"
        ratio = "–" if metric["ratio"] is None else f"{metric['ratio']:.2f}"
        met = {True: "yes", False: "**no**", None: "–"}[metric["met"]]
        value = f"{metric['value']:.4g} ± {metric['spread']:.2g} {metric['unit']}"
        lines.append(f"| {metric['metric']} | {value} | {metric['against'] or '–'} | {theirs} | {ratio} | {met} |")
    host = result["host"]
    about = (
        f"{result['repeats']} repeats, {host['cpu']}, {host['cores']} cores, load average {host['load_average_1m']}."
    )
    return "\n".join([*lines, "", about, *(f"Missing: {reason}" for reason in result["missing"])])


def soak(result: dict[str, Any]) -> str:
    """One sentence."""
    return (
        f"{result['requests']:,} requests in {result['seconds']:.0f} s: resident memory "
        f"{result['resident_mb_early']} MB early, {result['resident_mb_late']} MB late "
        f"(growth {result['growth_mb']} MB); at most {result['most_kv_used']:.0%} of the cache budget promised."
    )


TABLES = {"profile-llm": precisions, "llm": bench, "llm_serving": bench, "llm_soak": soak}


def update() -> None:
    """Put each table between its marks; without a result the page says how to make one."""
    text = PAGE.read_text()
    for name, make in TABLES.items():
        begin = f"<!-- {name}: from docs/benchmarks/{name}.json by `make docs`, never edited by hand -->"
        before, rest = text.split(begin)
        end = f"<!-- end of {name} -->"
        path = RESULTS / f"{name}.json"
        made = make(json.loads(path.read_text())) if path.exists() else MISSING
        text = f"{before}{begin}\n\n{made}\n\n{end}{rest.split(end)[1]}"
    PAGE.write_text(text)


if __name__ == "__main__":
    update()
