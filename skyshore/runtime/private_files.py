"""Files that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

PRIVATE_UMASK = 0o077


def make_private(folder: Path) -> None:
    """Create `folder` and make it private (0700); all later files of this process and its children are private too.

    Raises:
        OSError: the folder belongs to somebody else, or is shared by design as /tmp is.
    """
    os.umask(PRIVATE_UMASK)
    folder.mkdir(parents=True, exist_ok=True)
    now = folder.stat()
    if not stat.S_IMODE(now.st_mode) & PRIVATE_UMASK:
        return
    if now.st_uid != os.geteuid() or now.st_mode & stat.S_ISVTX:
        raise OSError(f"{folder} is shared with other users; set SKYSHORE_STATE_DIR to a folder of your own")
    folder.chmod(0o700)
