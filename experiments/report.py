"""The report page of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.bundle import Bundle
from experiments.comparison import Group


def report_page(bundle: Bundle, groups: Sequence[Group], absent: Sequence[str], failures: Mapping[str, str]) -> str:
    """HTML."""
    return ""
