"""`make bench`: what it runs is a command that answers, and its page holds what the benches printed."""

import subprocess

from scripts import run_benches


def test_it_runs_benches_by_the_command_a_person_would_use() -> None:
    answer = subprocess.run([*run_benches.COMMAND, "nonsense", "--json"], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    for name in run_benches.BENCHES:
        assert name in answer.stderr


def test_the_page_shows_a_missed_aim_as_missed() -> None:
    metric = {"metric": "speed", "value": 3.0, "spread": 0.5, "unit": "1/s", "against": "peer 1", "against_value": 6.0}
    row = run_benches.rows({"results": [{**metric, "ratio": 0.5, "aim": ">= 1", "met": False}]})
    assert row == ["| speed | 3 ± 0.5 1/s | peer 1 | 6 | 0.5 | >= 1 | **no** |"]
