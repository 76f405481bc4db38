"""Errors in an engine's settings."""

from __future__ import annotations

from skyshore.domain.errors import SkyshoreError


class EngineMisconfigured(SkyshoreError):
    """Settings and model do not fit each other; the message names the setting to change."""

    code = "engine_misconfigured"
