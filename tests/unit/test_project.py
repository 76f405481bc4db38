"""The shape of the project: what is packed, what make offers."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_wheel_holds_every_top_level_package_by_name() -> None:
    listed = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    there = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert listed == there
    assert set(PROJECT["tool"]["importlinter"]["root_packages"]) == there


def test_the_promised_folders_are_there() -> None:
    for name in ("protos", "services", "gateway", "edge_node", "cloud_node", "compose", "tests"):
        assert (ROOT / name).is_dir(), name


def test_make_offers_at_most_twelve_targets_and_says_what_each_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M).group(1).split())
    described = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.M))
    assert phony == described
    assert len(described) <= 12


def test_torch_is_asked_for_in_the_cloud_extra_only() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    with_torch = {name for name, wanted in extras.items() if any(line.startswith("torch") for line in wanted)}
    assert with_torch == {"cloud"}
    assert not any(line.startswith("torch") for line in PROJECT["project"]["dependencies"])


def test_every_dependency_is_bounded_above() -> None:
    everything = [*PROJECT["project"]["dependencies"]]
    for group in PROJECT["project"]["optional-dependencies"].values():
        everything += group
    for group in PROJECT["dependency-groups"].values():
        everything += [line for line in group if isinstance(line, str)]
    unbounded = [line for line in everything if not line.startswith("skyshore[") and not re.search(r"<|==", line)]
    assert unbounded == []


def test_every_pure_package_has_a_coverage_floor() -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (pure,) = [each["source_modules"] for each in contracts if each["name"].startswith("what decides does not do")]
    coverage = PROJECT["tool"]["coverage"]
    assert set(pure) <= {path.replace("/", ".") for path in coverage["run"]["source"]}
    assert coverage["run"]["branch"] is True
    assert coverage["report"]["fail_under"] >= 95
