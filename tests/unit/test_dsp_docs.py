"""The twenty lines of docs/dsp.md do what the page says."""

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra [cloud])")

from cloud_node.dsp.baselines.methods import METHODS  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "dsp.md"


def test_the_example_runs_and_equals_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    section = PAGE.read_text().split("## Shard your own model")[1]
    code = re.search(r"```python\n(.*?)```", section, re.S)
    assert code is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 20
    names: dict = {}
    exec(compile(code[1], str(PAGE), "exec"), names)
    expected = names["x"]
    for branch in names["branches"]:
        expected = expected + branch(expected)
    assert len(names["answers"]) == 3
    assert all(torch.equal(answer, expected) for answer in names["answers"])
    assert capsys.readouterr().out.startswith("1 Traffic(")


@pytest.mark.parametrize(
    ("row", "method"),
    [
        ("**DSP**", "dsp"),
        ("Ulysses, one", "ulysses"),
        ("Ulysses, time", "ulysses-flattened"),
        ("ring", "ring"),
        ("switch by all-gather", "all-gather"),
        ("Megatron", "megatron"),
    ],
)
def test_the_table_of_bytes_says_what_the_methods_promise(row: str, method: str) -> None:
    line = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| {row}"))
    shown = [float(cell.strip(" M")) for cell in line.split("|")[4:7]]
    promised = [float(METHODS[method].per_pair(n)) for n in (2, 4, 8)]
    assert shown == pytest.approx(promised, abs=0.006)
