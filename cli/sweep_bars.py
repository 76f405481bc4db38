"""Progress of a sweep on a terminal: one bar for all cells, and one for each running cell."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from experiments.run.processes import Event, Progressed


class SweepBars:
    """A context manager; `show` moves the bars."""

    def __init__(self, console: Console, cells: int, done: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._whole = self._progress.add_task("cells", total=cells, completed=done)
        self._cells: dict[str, TaskID] = {}

    def __enter__(self) -> SweepBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Move the bar of the event's cell."""
        name = event.job.cell.name
        if isinstance(event, Progressed):
            if name not in self._cells:
                self._cells[name] = self._progress.add_task(f"  {name}", total=100)
            self._progress.update(self._cells[name], completed=round(100 * event.share))
            return
        if name in self._cells:
            self._progress.remove_task(self._cells.pop(name))
        self._progress.advance(self._whole)
