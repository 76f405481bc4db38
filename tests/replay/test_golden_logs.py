"""Recorded histories run through today's code: a different decision is a change of behaviour, meant or not.

If it is meant: `python -m tests.replay.record POLICY`, and say in the commit why.
"""

import pytest

from skyshore.domain.errors import InvalidTask
from skyshore.policies.registry import POLICIES
from skyshore.scheduling.log import EventEncoder, decode_log, encode_dispatch, encode_header, replay
from tests.replay.record import GOLDEN, record


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_recorded_history_gives_the_recorded_decisions(policy):
    history = (GOLDEN / f"{policy}.events.jsonl").read_text(encoding="utf-8").splitlines()
    decided = (GOLDEN / f"{policy}.decisions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [encode_dispatch(action) for action in replay(history)] == decided
    assert len(decided) > 10


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_the_same_seed_gives_the_same_run(policy):
    assert record(policy) == record(policy)


def test_a_log_reads_back_as_it_was_written():
    lines, _ = record("random")
    settings, events = decode_log(lines)
    assert [encode_header(settings), *map(EventEncoder().encode, events)] == lines


@pytest.mark.parametrize("line", ["", "{}", '{"log": 99}', "no json", '{"log": 1, "settings": {"nonsense": 1}}'])
def test_something_else_is_no_log(line):
    with pytest.raises(InvalidTask):
        list(replay([line]))


def test_a_damaged_event_is_named():
    lines, _ = record("random")
    with pytest.raises(InvalidTask, match="not an event"):
        list(replay([lines[0], '{"event": "NoSuch"}']))
