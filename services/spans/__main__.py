"""python -m services.spans."""

from __future__ import annotations

from services.spans.app import serve
from services.spans.settings import SpansSettings
from skyshore.runtime import logs
from skyshore.runtime.serve import run

if __name__ == "__main__":
    settings = SpansSettings()
    logs.configure("spans", settings.log_level, as_json=settings.log_json)
    run(serve(settings))
