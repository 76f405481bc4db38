"""The pages on policies and the registry name the same policies."""

import re
from pathlib import Path

import pytest

from skyshore.policies.registry import POLICIES

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [(DOCS / name).read_text(encoding="utf-8") for name in ("policies.md", "policies_baselines.md")]
QUOTED = {name for page in PAGES for name in re.findall(r"`([\w.]+)`", page)}
FIRST_COLUMNS = {
    name
    for page in PAGES
    for line in page.splitlines()
    if line.startswith("| `")
    for name in re.findall(r"`([\w.]+)`", line.split("|")[1])
}


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_is_described(name):
    assert name in QUOTED


@pytest.mark.parametrize("name", sorted(FIRST_COLUMNS))
def test_every_policy_listed_can_be_had(name):
    assert name in POLICIES


def test_every_family_has_a_row_and_the_papers_ones_a_section():
    families = {name.partition(".")[0] for name in POLICIES}
    assert families <= FIRST_COLUMNS
    headings = " ".join(line for page in PAGES for line in page.splitlines() if line.startswith("## "))
    for name in ("cs_ucb", "cdio", "skyshore", "fine_infer", "agod", "rewardless_guidance", "jcab", "a2", "dds"):
        assert f"`{name}`" in headings
