"""Errors of the launcher."""

from __future__ import annotations

from skyshore.domain.errors import SkyshoreError


class LaunchFailed(SkyshoreError):
    """The system did not start, or did not keep running; the message names the process and its log."""

    code = "launch_failed"


class NotRunning(SkyshoreError):
    """No system runs."""

    code = "not_running"


class AlreadyRunning(SkyshoreError):
    """A system already runs in the state folder."""

    code = "already_running"
