"""Regenerate docs/openapi.json from the gateway itself, and fail on a link between pages that leads nowhere."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


def dead_links() -> list[str]:
    """Every relative link of every page whose target is not there."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    return [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text())
        if not (page.parent / target).exists()
    ]


def main() -> None:
    """Write the API description, then check the pages."""
    from gateway.app import openapi_document  # noqa: PLC0415 - the link check must work without the gateway's libraries

    (ROOT / "docs" / "openapi.json").write_text(json.dumps(openapi_document(), indent=1, sort_keys=True) + "\n")
    if dead := dead_links():
        sys.exit("\n".join(["links that lead nowhere:", *dead]))


if __name__ == "__main__":
    main()
