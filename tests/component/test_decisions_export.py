"""From a live decision log to a policy's estimated worth: export from a real store, then evaluate, as commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from experiments.figures.decision_table import SCHEMA
from skyshore.adapters.redis_store import RedisStore
from skyshore.scheduling.core import CoreSettings
from tests.fakes.queue_model import QueueModel, QueueRun, digest_fleet, llm_arrivals


def skyshore(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


def play(policy: str) -> QueueRun:
    return QueueModel(digest_fleet(), CoreSettings(policy=policy), seed=3).play(llm_arrivals(1.0, 500, seed=3))


async def fill(url: str, run: QueueRun) -> None:
    store = RedisStore(url)
    records = [action.record for action in (*run.dispatched, *run.rejected)]
    await store.append_decisions(sorted(records, key=lambda record: record.decided_at_s))
    await store.append_outcomes(run.outcomes)
    await store.close()


async def test_a_live_log_is_exported_and_evaluates_the_policy_that_made_it(valkey_url: str, tmp_path: Path) -> None:
    run, log = play("random"), tmp_path / "decisions.parquet"
    await fill(valkey_url, run)
    exported = skyshore("decisions", "export", "--out", str(log), "--redis-url", valkey_url, "--json")
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout) == {"file": str(log), "decisions": 500, "with_outcome": 500}
    assert parquet.read_schema(log).names == SCHEMA.names

    found = json.loads(skyshore("evaluate", "random", "--on", str(log), "--json").stdout)
    assert found["logged"]["attainment"] == pytest.approx(run.attainment)
    estimated = found["estimates"]["attainment"]["snips"]
    assert estimated["low"] <= run.attainment <= estimated["high"]
    assert 30 < found["effective_samples"] < 200  # one in six choices of one uniform policy is another's

    shown = skyshore("evaluate", "shortest_delay", "--on", str(log))
    assert shown.returncode == 0
    assert "effective sample size" in " ".join(shown.stdout.split())


async def test_a_log_made_without_chance_is_refused(valkey_url: str, tmp_path: Path) -> None:
    log = tmp_path / "decisions.parquet"
    await fill(valkey_url, play("shortest_delay"))
    skyshore("decisions", "export", "--out", str(log), "--redis-url", valkey_url)
    answer = skyshore("evaluate", "least_loaded", "--on", str(log))
    assert answer.returncode == 1
    assert "made without chance" in answer.stderr
    assert "`random`" in answer.stderr


def test_what_is_no_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no")
    assert "not a Parquet file" in skyshore("evaluate", "random", "--on", str(tmp_path / "x.parquet")).stderr
