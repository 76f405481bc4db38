"""Which code made a result."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("skyshore", "simulator", "experiments")
"""What a simulated figure depends on."""
NOT_NEEDED = ("skyshore/v1", "skyshore/catalogue", "skyshore/engines", "skyshore/runtime", "skyshore/worker")
"""Parts of them that no simulation imports."""


@cache
def sources_sha256() -> str:
    """Hex digest over the Python files and data that simulated figures depend on."""
    digest = hashlib.sha256()
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()]
    for path in sorted(files):
        name = path.relative_to(ROOT).as_posix()
        if "__pycache__" not in path.parts and not name.startswith(NOT_NEEDED):
            digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def code_version() -> dict[str, str | bool]:
    """Version, digest of the sources and, in a checkout, the commit and whether files differ from it."""
    known: dict[str, str | bool] = {"version": metadata.version("skyshore"), "sources_sha256": sources_sha256()}
    commit = _git("rev-parse", "HEAD")
    if commit:
        known |= {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--", *PACKAGES))}
    return known


def _git(*words: str) -> str:
    """Output of git; empty without git or without a repository."""
    try:
        run = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip()
