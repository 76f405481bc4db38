"""Complexity and compute preference of each segment, as the profiler would compute them, in virtual time."""

from __future__ import annotations

from skyshore.domain.task import Task
from skyshore.profiling.preference import PreferenceNetwork, PreferencePredictor
from skyshore.workload.arrival import Arrival
from skyshore.workload.clip_complexity import clip_complexity

Seen = tuple[tuple[float, ...], float]
"""Complexity vector and compute preference of one segment."""
UNSEEN: Seen = ((), 0.5)
"""Of text, and of clips without measured complexity."""


class SegmentPictures:
    """Runs the profiler's own predictor over the clips' measured complexity.

    Cameras that show the same clip under the same demands get the same answer, so each is computed once.
    """

    def __init__(self) -> None:
        self._made: PreferencePredictor | None = None
        self._answers: dict[tuple[str, int, float, float], list[Seen]] = {}

    @property
    def _predictor(self) -> PreferencePredictor:
        """Made when first asked: its weights take some milliseconds to read, and text needs none."""
        if self._made is None:
            self._made = PreferencePredictor(PreferenceNetwork.shipped())
        return self._made

    def of(self, arrival: Arrival, task: Task) -> Seen:
        """Complexity and preference of one request."""
        if not arrival.clip or not clip_complexity(arrival.clip, 0):
            return UNSEEN
        key = (arrival.clip, arrival.frames, task.min_quality, task.deadline_s)
        answers = self._answers.setdefault(key, [])
        wanted = arrival.first_frame // arrival.frames
        while len(answers) <= wanted:
            complexity = clip_complexity(arrival.clip, len(answers) * arrival.frames)
            stream = Task("", task.kind, deadline_s=task.deadline_s, min_quality=task.min_quality, job_id=str(key))
            answers.append((complexity, self._predictor.predict(stream, arrival.frames, complexity)))
        return answers[wanted]
