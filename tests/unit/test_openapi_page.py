"""The pages of the REST interface name every route that the gateway has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from scripts.make_docs import openapi_document

DOCS = Path(__file__).resolve().parents[2] / "docs"


async def test_the_checked_in_document_is_what_the_gateway_answers() -> None:
    checked_in = json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))
    assert checked_in == json.loads(json.dumps(await openapi_document())), (
        "run `make docs` and commit docs/openapi.json"
    )


def test_every_route_is_on_the_page_of_the_interface() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    named = {re.sub(r"\{[^}]*\}", "{}", path) for path in re.findall(r"/[-\w./{}]+", page)}
    routes = json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))["paths"]
    assert [path for path in routes if re.sub(r"\{[^}]*\}", "{}", path) not in named] == [], "add a row to docs/api.md"
