"""Regenerate skyshore/v1 from protos/. With --check, fail if the committed stubs differ."""

from __future__ import annotations

import filecmp
import shutil
import sys
import sysconfig
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
STUBS = ROOT / "skyshore" / "v1"


def generate(into: Path) -> None:
    """Write *_pb2.py, *_pb2_grpc.py and typed stubs below `into`."""
    protos = sorted((ROOT / "protos").rglob("*.proto"))
    bin_dir = Path(sysconfig.get_path("scripts"))
    arguments = [
        "protoc",
        f"-I{ROOT / 'protos'}",
        f"-I{resources.files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
        f"--python_out={into}",
        f"--grpc_python_out={into}",
        f"--mypy_out={into}",
        f"--mypy_grpc_out={into}",
        *map(str, protos),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    package = into / "skyshore" / "v1"
    (package / "__init__.py").write_text('"""Generated from protos/skyshore/v1 by `make fmt`. Never edited."""\n')


def main() -> None:
    """Generate in a temporary folder, then compare or replace."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = Path(scratch) / "skyshore" / "v1"
        if "--check" not in sys.argv:
            shutil.rmtree(STUBS, ignore_errors=True)
            shutil.copytree(fresh, STUBS)
            return
        names = {p.name for p in fresh.iterdir()} | {p.name for p in STUBS.iterdir() if p.is_file()}
        _, differing, missing = filecmp.cmpfiles(fresh, STUBS, sorted(names), shallow=False)
        if differing or missing:
            raise SystemExit(f"stubs are stale: {', '.join(differing + missing)}; run 'make fmt' and commit")
        print(f"{len(names)} stub files are up to date")


if __name__ == "__main__":
    main()
