"""The card beside shipped weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def write_card(path: Path, card: Mapping[str, object]) -> None:
    """A model card as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
