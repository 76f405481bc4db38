"""What can go wrong between `up` and `down`."""

from __future__ import annotations

from skyshore.domain.errors import SkyshoreError


class LaunchFailed(SkyshoreError):
    """The system did not come up, or did not stay up; the message names the process and its log."""

    code = "launch_failed"


class NotRunning(SkyshoreError):
    """There is no system to talk to."""

    code = "not_running"


class AlreadyRunning(SkyshoreError):
    """One system per state folder."""

    code = "already_running"
