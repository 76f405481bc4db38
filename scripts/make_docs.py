"""Regenerate what pages hold of machines' words, and fail on a link between pages that leads nowhere.

docs/openapi.json comes from the gateway itself, the arms in docs/video.md from a profile, the tables of docs/llm.md
from benches and a profile, the line numbers of the rule map from the code.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

from gateway.app import create_app
from gateway.deps import Deps
from gateway.settings import GatewaySettings
from scripts import llm_table, rule_map, video_table
from skyshore.adapters.profiler_client import MuxProfilerClient
from skyshore.adapters.redis_store import RedisStore
from skyshore.adapters.scheduler_client import MuxSchedulerClient
from skyshore.adapters.worker_client import WorkerPool
from skyshore.mux.client import MuxChannel

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


async def openapi_document() -> dict[str, Any]:
    """What `/openapi.json` answers; nothing is connected to, for nothing is called."""
    settings = GatewaySettings()
    channel, store, workers = MuxChannel(settings.profiler_address), RedisStore(settings.redis_url), WorkerPool()
    deps = Deps(settings, store, MuxProfilerClient(channel), MuxSchedulerClient(channel), workers)
    document = create_app(deps).openapi()
    for opened in (workers, channel, store):
        await opened.close()
    return document


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
    """Write the API description and the generated tables, then check the pages."""
    document = asyncio.run(openapi_document())
    (ROOT / "docs" / "openapi.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    video_table.update()
    llm_table.update()
    rule_map.update()
    if dead := dead_links():
        sys.exit("\n".join(["links that lead nowhere:", *dead]))


if __name__ == "__main__":
    main()
