"""torch.distributed reports every failure as RuntimeError; here they become domain errors."""

from __future__ import annotations

from datetime import timedelta

import torch.distributed as dist

from skyshore.domain.errors import DeadlineExceeded, NodeUnavailable

_TIMEOUT_WORDS = ("timed out", "timeout", "Timed out")


def wait_for(work: dist.Work, timeout_s: float) -> None:
    """Wait for one piece of work.

    Raises:
        NodeUnavailable: the peer's connection broke.
        DeadlineExceeded: nothing happened for `timeout_s`; the process group cannot be used any more.
    """
    try:
        work.wait(timedelta(seconds=timeout_s))
    except RuntimeError as error:
        text = str(error)
        if any(word in text for word in _TIMEOUT_WORDS):
            raise DeadlineExceeded(f"a peer did not answer for {timeout_s} s; rebuild the group") from error
        raise NodeUnavailable(f"a peer is gone ({text.splitlines()[0][:120]}); rebuild the group") from error
