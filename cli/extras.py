"""Checks for optional dependencies."""

from __future__ import annotations

from importlib.util import find_spec

from skyshore.domain.errors import NotFound


def require(extra: str, *modules: str) -> None:
    """Raises NotFound with the install command if a module of an extra is missing."""
    absent = [name for name in modules if find_spec(name) is None]
    if absent:
        raise NotFound(f"this needs {', '.join(absent)}: .venv/bin/pip install -e '.[{extra}]'")
