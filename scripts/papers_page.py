"""docs/papers.md from docs/benchmarks/papers.json: no figure on that page is typed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

INTRO = Path(__file__).parent / "papers_intro.md"
Columns = Sequence[tuple[str, str, float, int]]
"""Title, name of the figure, factor, digits."""
MET = ("met %", "attainment", 100.0, 1)
ENDS = (
    ("not in time", "deadline_violations", 1.0, 0),
    ("below floor", "quality_violations", 1.0, 0),
    ("refused", "rejected", 1.0, 0),
    ("quality", "quality", 1.0, 3),
)
REGRETS = (
    ("regret: fixed arm", "regret_fixed", 100.0, 1),
    ("regret: oracle", "regret_oracle", 100.0, 1),
    ("regret: bound", "regret_bound", 100.0, 1),
)
LLM_SERVED = (
    MET,
    ("in time /s", "goodput_per_s", 1.0, 2),
    ("tokens/s", "output_tokens_per_s", 1.0, 0),
    *ENDS,
    *REGRETS,
)
VIDEO_SERVED = (
    MET,
    ("in time /s", "goodput_per_s", 1.0, 1),
    ("frames/s", "frames_per_s", 1.0, 1),
    *ENDS,
    *REGRETS,
)


def _cost(digits: int) -> Columns:
    return (
        ("J per answer", "joules_per_request", 1.0, digits),
        ("of it links", "transmission_joules_per_request", 1.0, 3),
        ("inference", "inference_joules_per_request", 1.0, digits),
        ("idle share", "idle_joules_per_request", 1.0, digits),
        ("J of fleet per met", "fleet_joules_per_met", 1.0, digits),
        ("kB per request", "link_bytes_per_request", 1e-3, 1),
        ("compute s per request", "compute_s_per_request", 1.0, 3),
        ("edge %", "edge_share", 100.0, 0),
    )


NAMES = {"best_fixed_arm": "*best fixed arm*", "oracle_schedule": "*oracle schedule*"}
"""Rows that are references, not policies."""
CLAIMS = {
    "perllm": "the paper: 2.2, 2.1 and 1.6 times the throughput of FineInfer, AGOD and RewardlessGuidance (order "
    "assumed), more than 50 % less energy",
    "cdio": "the paper: 20 to 40 % less compute and bandwidth, more than 40 % less energy",
}
LEAST_SAVING, MOST_SHORT = 0.10, 0.03
"""What `skyshore` is to reach (issue 6): joules saved below the best rival, attainment near the bound."""


def page(content: Mapping[str, Any]) -> str:
    """The whole page."""
    code = content["code"]
    lines = [INTRO.read_text(encoding="utf-8").rstrip(), ""]
    made = f"Made by `{content['command']}`, commit `{_commit(code)}`, sources `{code['sources_sha256'][:12]}`."
    lines += [
        made + (" Ablations and policies that are nobody's rival here are left out." if content["brief"] else ""),
        "Except under [Live](#live), times are virtual and joules modelled: the load of the machine does not matter.",
        "Brackets are 95 % intervals of the mean over paired seeds; a ratio is the mean of the ratios on each seed.",
        "",
    ]
    if content["failed_cells"]:
        lines += [f"**{content['failed_cells']} cells failed; what they would have shown is missing below.**", ""]
    for scenario in content["scenarios"]:
        lines += _scenario(scenario)
    if "live" in content:
        lines += _live(content["live"])
    return "\n".join(lines).rstrip() + "\n"


def _commit(code: Mapping[str, Any]) -> str:
    return str(code.get("commit", ""))[:12] or "unknown"


def _scenario(found: Mapping[str, Any]) -> Iterator[str]:
    name = found["scenario"]
    yield f"## {name}"
    yield ""
    if found["missing"]:
        yield f"Not run, because this installation lacks them: {', '.join(found['missing'])}."
        yield ""
    yield f"### What the paper says, and what comes out here ({CLAIMS[name.partition('-')[0]]})"
    yield ""
    yield from _headline(found)
    yield f"### `skyshore` against its rivals, {name}"
    yield ""
    yield from _rivals((f"{at_load['load']:g}", at_load["skyshore_over"]) for at_load in found["loads"])
    for at_load in found["loads"]:
        yield f"- Load {at_load['load']:g}: {verdict(at_load)}"
    yield ""
    for at_load in found["loads"]:
        yield f"### {name}, load {at_load['load']:g}"
        yield ""
        yield _seeds(at_load["seeds"])
        yield f"No schedule meets more than {_cell(at_load['bound'], 100.0, 1)} % of the deadlines."
        yield ""
        yield from _tables(name, at_load["policies"])


def _seeds(seeds: Sequence[int]) -> str:
    if not seeds:
        return "No seed is complete."
    return f"{len(seeds)} paired seeds, {seeds[0]} to {seeds[-1]}."


def _tables(name: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    llm = name.startswith("perllm")
    yield from _table("What was served", rows, LLM_SERVED if llm else VIDEO_SERVED)
    yield from _table("What it cost", rows, _cost(1 if llm else 3))


def _headline(found: Mapping[str, Any]) -> Iterator[str]:
    llm = found["scenario"].startswith("perllm")
    columns = ("output_tokens_per_s", "goodput_per_s") if llm else ("compute_s_per_request", "link_bytes_per_request")
    titles = ("tokens/s, ratio", "in time /s, ratio") if llm else ("compute s, ratio", "bytes, ratio")
    joules = ("joules_per_request", "fleet_joules_per_met")
    yield f"| load | `{found['method']}` over | {' | '.join(titles)} | J per answer, ratio | J per met, ratio |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for at_load in found["loads"]:
        for baseline, ratios in at_load["method_over"].items():
            cells = [_cell(ratios.get(column), 1.0, 2) for column in (*columns, *joules)]
            yield f"| {at_load['load']:g} | `{baseline}` | {' | '.join(cells)} |"
    yield ""


def _rivals(held: Iterator[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    yield "| load | rival | deadlines met, difference in points | J of fleet per met, ratio |"
    yield "| --- | --- | --- | --- |"
    for load, rivals in held:
        for rival, ratios in rivals.items():
            more, joules = ratios.get("attainment_difference"), ratios.get("fleet_joules_per_met")
            yield f"| {load} | `{rival}` | {_cell(more, 100.0, 1)} | {_cell(joules, 1.0, 3)} |"
    yield ""


def verdict(at_load: Mapping[str, Any]) -> str:
    """Whether the aim is met: joules against the most energy-efficient rival, deadlines against the best one."""
    rivals = at_load["skyshore_over"].values()
    joules = [ratios["fleet_joules_per_met"]["mean"] for ratios in rivals if "fleet_joules_per_met" in ratios]
    more = [ratios["attainment_difference"]["mean"] for ratios in rivals]
    if not joules:
        return "no rival was run."
    saved, ahead = 1.0 - max(joules), min(more)
    enough = (
        "target met" if saved >= LEAST_SAVING and ahead >= 0 else "**short of the 10 % at equal or better attainment**"
    )
    text = f"{100 * saved:.1f} % fewer joules per met deadline than the most energy-efficient rival and "
    text += f"{100 * ahead:+.1f} points against the one that meets most deadlines: {enough}."
    ours: Mapping[str, Any] = next((row["figures"] for row in at_load["policies"] if row["policy"] == "skyshore"), {})
    short, behind = ours.get("regret_bound"), ours.get("regret_oracle")
    if short is not None and short["mean"] is not None:
        near = "within" if short["mean"] <= MOST_SHORT else "not within"
        text += f" {_cell(short, 100.0, 1)} points below the clairvoyant bound ({near} 3)"
        text += f", {_cell(behind, 100.0, 1)} below the oracle schedule."
    return text


def _live(found: Mapping[str, Any]) -> Iterator[str]:
    seeds = found["seeds"]
    yield "## Live"
    yield ""
    yield f"`scenarios/papers/{found['scenario']}.toml` at load 1, played by processes over sockets and shaped links"
    yield f"against the clock ({', '.join(found['provenance'])}: engines only wait as long as their model says; joules"
    yield f"are modelled). A run lasts {found['duration_s']:g} s and starts without learned state, and is too short to"
    yield "learn much. The machine has two cores and was busy with other work."
    yield ""
    yield f"{_seeds(seeds)} {found['runs']} runs, of which {found['invalid']} were INVALID (the client could not keep"
    yield f"the schedule) and left out with their pairs; of the {found['kept']} kept, {found['degraded']} were DEGRADED"
    yield "(the client later than is good, but not by much). No schedule meets more than"
    yield f"{_cell(found['bound'], 100.0, 1)} % of the deadlines. Commit `{_commit(found['code'])}`:"
    yield ""
    yield "```console"
    names = ",".join(row["policy"] for row in found["policies"])
    yield f"$ skyshore compare scenarios/papers/{found['scenario']}.toml --driver live --policies {names} \\"
    yield f"    --seeds {len(seeds)} --first-seed {seeds[0] if seeds else 0} --no-rows --out out/papers-live"
    yield "$ python scripts/make_papers.py --gather --live out/papers-live"
    yield "```"
    yield ""
    yield from _rivals(iter([("1", found["skyshore_over"])]))
    yield from _tables(found["scenario"], found["policies"])


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Columns) -> Iterator[str]:
    """Columns without a single figure are left out."""
    there = [column for column in columns if any(column[1] in row["figures"] for row in rows)]
    yield f"{title}:"
    yield ""
    yield f"| policy | {' | '.join(heading for heading, *_ in there)} |"
    yield "| --- |" + " --- |" * len(there)
    for row in rows:
        cells = [_cell(row["figures"].get(name), factor, digits) for _, name, factor, digits in there]
        yield f"| {NAMES.get(row['policy'], '`' + row['policy'] + '`')} | {' | '.join(cells)} |"
    yield ""


def _cell(found: Mapping[str, float | None] | None, factor: float, digits: int) -> str:
    if found is None or found["mean"] is None:
        return "–"
    mean = f"{found['mean'] * factor:.{digits}f}"
    low, high = found["low"], found["high"]
    if low is None or high is None or low == high:
        return mean
    return f"{mean} [{low * factor:.{digits}f}, {high * factor:.{digits}f}]"
