"""docs/adding-a-policy.md, followed in a copy of the project: file, registry, commands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("skyshore", "simulator", "experiments", "cli", "loadgen", "scenarios", "tests", "pyproject.toml")


@pytest.mark.timeout(400)
def test_the_walk_from_file_to_table(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "adding-a-policy.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (diff,) = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
    commands = [
        command.partition("#")[0].strip()
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        for command in block.splitlines()
    ]
    assert [command.split()[0] for command in commands] == ["python", "python", "skyshore", "skyshore", "skyshore"]

    for part in PARTS:
        copied = shutil.ignore_patterns("__pycache__", "*.pyc")
        whole = (ROOT / part).is_dir()
        (shutil.copytree(ROOT / part, tmp_path / part, ignore=copied) if whole else shutil.copy(ROOT / part, tmp_path))
    (tmp_path / "skyshore/policies/baselines/nearest.py").write_text(source, encoding="utf-8")
    registry = tmp_path / "skyshore/policies/registry.py"
    content = registry.read_text(encoding="utf-8")
    context = "".join(f"{line[1:]}\n" for line in diff.splitlines() if line[0] == " ")
    added = "".join(f"{line[1:]}\n" for line in diff.splitlines())
    assert context in content
    registry.write_text(content.replace(context, added), encoding="utf-8")

    said = ""
    for command in commands:
        words = {"python": [sys.executable], "skyshore": [sys.executable, "-m", "cli"]}
        first, *rest = command.split()
        env = os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
        done = subprocess.run(
            [*words[first], *rest], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        said += done.stdout
    assert (tmp_path / "out/nearest/report.html").exists()
    assert "nearest" in said
    assert "effective sample size" in " ".join(said.split())
