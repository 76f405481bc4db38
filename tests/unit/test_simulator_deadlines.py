"""Deadlines kept in lanes come when and in the order they would have come from the timeline itself."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from simulator import deadlines as module
from simulator.deadlines import Deadlines
from simulator.timeline import Timeline


@dataclass
class Job:
    name: int
    over: bool = False


class Story:
    """Jobs begin and end by a script; what expires is written down, beside markers planned in between."""

    def __init__(self, script: list[tuple[float, float, float | None]], *, lanes: bool) -> None:
        self.timeline, self.told = Timeline(), []
        self.deadlines = Deadlines(self.timeline, self.expire)
        for name, (start_s, allowed_s, ends_after_s) in enumerate(script):
            self.timeline.at(start_s, self.begin, (Job(name), allowed_s, ends_after_s, lanes))
        self.timeline.run()

    def begin(self, job: tuple[Job, float, float | None, bool]) -> None:
        task, allowed_s, ends_after_s, lanes = job
        now_s = self.timeline.now_s
        if lanes:
            self.deadlines.add(allowed_s, task)
        else:
            self.timeline.at(now_s + allowed_s, lambda each: None if each.over else self.expire(each), task)
        self.timeline.at(now_s + 1.0, self.told.append, ("mark", task.name))
        if ends_after_s is not None:
            self.timeline.at(now_s + ends_after_s, self.end, task)

    def end(self, task: Job) -> None:
        task.over = True

    def expire(self, task: Job) -> None:
        task.over = True
        self.told.append((self.timeline.now_s, task.name))


# Whole numbers on purpose: many things happen at the same time, and then their order counts.
scripts = st.lists(
    st.tuples(
        st.integers(0, 6).map(float), st.integers(1, 4).map(float), st.one_of(st.none(), st.integers(0, 4).map(float))
    ),
    max_size=30,
)


@given(scripts)
def test_lanes_tell_the_same_story_as_the_timeline(script):
    assert Story(script, lanes=True).told == Story(script, lanes=False).told


def test_beyond_so_many_lanes_the_timeline_takes_over(monkeypatch):
    monkeypatch.setattr(module, "MOST_LANES", 1)
    script = [(0.0, 3.0, None), (0.0, 2.0, None), (1.0, 1.0, 0.5), (1.0, 2.0, None)]
    assert Story(script, lanes=True).told == Story(script, lanes=False).told
