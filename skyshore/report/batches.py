"""Takes records one by one and works on them in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from skyshore.report.request_record import RequestRecord


class RecordBatches(ABC):
    """Keeps up to `size` records, then passes them to `_take`; `flush` passes on what is left."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: list[RequestRecord] = []

    def __call__(self, record: RequestRecord) -> None:
        """Take one record; it must not change afterwards."""
        self._waiting.append(record)
        if len(self._waiting) >= self._size:
            self.flush()

    def flush(self) -> None:
        """Work on the records that still wait."""
        if self._waiting:
            records, self._waiting = self._waiting, []
            self._take(records)

    @abstractmethod
    def _take(self, records: Sequence[RequestRecord]) -> None:
        """Work on one batch, in the order in which the records came."""
