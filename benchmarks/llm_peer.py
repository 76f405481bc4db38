"""llama-cpp-python, the peer of the language-model benches: where it is looked for, and how to get it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

NAME: Final = "llama-cpp-python"
VERSION: Final = "0.3.36"
FOLDER: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "skyshore" / "peers"
VENV: Final = FOLDER / "llama-cpp-0.3.36"
"""An environment of its own: its server wants other versions of our packages than we do."""
PYTHON: Final = VENV / "bin" / "python"
INSTALL: Final = (
    f"python -m venv {VENV} && CMAKE_ARGS='-DGGML_NATIVE=ON' "
    f"{PYTHON} -m pip install --no-binary {NAME.replace('-', '_')} '{NAME}[server]=={VERSION}'"
)
"""It compiles for minutes; a C++ compiler and CMake must be there."""


def why_missing() -> str:
    """Why the peer cannot be run, with the command that installs it; empty if it can."""
    if not PYTHON.is_file():
        return f"{NAME} {VERSION} is not installed in {VENV}; install it with: {INSTALL}"
    program = "import llama_cpp; print(llama_cpp.__version__)"
    process = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True, check=False)
    found = process.stdout.strip()
    if process.returncode or found != VERSION:
        held = found or f"that does not load ({process.stderr.strip().rpartition(chr(10))[2]})"
        return f"{VENV} holds {NAME} {held}; the bench is pinned to {VERSION}: {INSTALL}"
    return ""
