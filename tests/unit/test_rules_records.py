"""Records in both forms, and kernels that are chosen by the type of their state."""

import os
from typing import NamedTuple

import numpy as np
import pytest

from skyshore.rules import kernel as module
from skyshore.rules.kernel import can_compile, compiled, generic, implement, is_kept, keep
from skyshore.rules.records import (
    DECISION,
    DEMAND,
    NODE,
    Options,
    column,
    dtype_of,
    fields_of,
    floats,
    get,
    in_form,
    integers,
    put,
    rows,
    with_room,
)


@pytest.mark.parametrize("arrays", [False, True])
def test_fields_are_written_and_read_by_name_in_both_forms(arrays):
    (record,) = rows(NODE, 1, arrays=arrays)
    put(record, {"own": 2.5, "open": 1})
    assert (get(record, "own"), get(record, "open"), get(record, "peak")) == (2.5, 1, 0.0)
    assert type(get(record, "open")) is int
    assert type(get(record, "own")) is float


@pytest.mark.parametrize("arrays", [False, True])
def test_a_record_is_read_whole_in_both_forms(arrays):
    (record,) = rows(NODE, 1, arrays=arrays)
    put(record, {"own": 2.5, "open": 1})
    values = fields_of(record)
    assert tuple(values) == NODE.names
    assert (values["own"], values["open"], values["peak"]) == (2.5, 1, 0.0)
    assert {type(value) for value in values.values()} == {int, float}


def test_plain_rows_have_no_other_fields():
    (record,) = rows(NODE, 1, arrays=False)
    with pytest.raises(AttributeError):
        record.no_such_field = 1


@pytest.mark.parametrize("arrays", [False, True])
def test_tables_have_any_shape_and_value(arrays):
    assert np.array(integers(2, 3, arrays=arrays, fill=7)).tolist() == [[7] * 3] * 2
    assert np.array(floats(2, arrays=arrays)).tolist() == [0.0, 0.0]
    table = integers(2, 2, arrays=arrays)
    table[0][1] = 5
    assert table[1][1] == 0, "rows are not shared"


@pytest.mark.parametrize("arrays", [False, True])
def test_a_column_is_one_field_of_the_first_rows(arrays):
    records = rows(NODE, 3, arrays=arrays)
    for number, record in enumerate(records):
        put(record, {"own": float(number)})
    assert column(records, "own", 2).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("arrays", [False, True])
def test_room_is_added_behind_what_is_there(arrays):
    records = rows(NODE, 1, arrays=arrays)
    put(records[0], {"own": 3.0})
    roomy = with_room(records, NODE, 4)
    assert column(roomy, "own", 4).tolist() == [3.0, 0.0, 0.0, 0.0]


def test_the_forms_turn_into_each_other():
    options = Options(rows(DECISION, 2, arrays=False), rows(DEMAND, 1, arrays=False), [0.5, 1.5])
    options.decision[1].count = 4
    options.estimates[0].tried[:2] = [8, 9]
    arrays = in_form(options, arrays=True)
    assert isinstance(arrays, Options)
    assert arrays.decision["count"].tolist() == [0, 4]
    assert arrays.estimates["tried"][0][:3].tolist() == [8, 9, 0]
    assert arrays.scores.dtype == np.float64
    again = in_form(arrays, arrays=False)
    assert (again.decision[1].count, again.estimates[0].tried[:3], again.scores) == (4, [8, 9, 0], [0.5, 1.5])
    assert in_form(again, arrays=False).scores is again.scores, "nothing is copied that has its form"
    assert in_form(arrays, arrays=True).scores is arrays.scores
    assert in_form("a setting", arrays=True) == "a setting"
    assert in_form([], arrays=True).tolist() == []


def test_a_name_given_twice_is_one_field():
    assert dtype_of("a b a", "n n").names == ("a", "b", "n")


class Loud(NamedTuple):
    volume: int


class Quiet(NamedTuple):
    volume: int


def test_a_generic_kernel_is_chosen_by_the_type_of_its_first_argument():
    @generic
    def say(state: object, more: int) -> int:
        return more

    @implement(say, Loud)
    def shout(state: Loud, more: int) -> int:
        return state.volume * more

    assert say(Loud(3), 5) == 15
    assert say(Quiet(3), 5) == 5


def test_only_kernels_compile():
    with pytest.raises(TypeError, match="no kernel"):
        compiled(len)


def test_without_numba_compiling_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(module.util, "find_spec", lambda name: None)
    assert not can_compile()


@pytest.mark.skipif(not can_compile(), reason="numba is not installed: pip install 'skyshore[sim]'")
def test_what_was_compiled_is_remembered_by_version(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module._cache_folder.cache_clear()
    try:
        assert not is_kept("a policy")
        keep("a policy")
        assert is_kept("a policy")
        assert not is_kept("another")
        monkeypatch.setenv("NUMBA_CACHE_DIR", os.devnull)
        module._cache_folder.cache_clear()
        keep("a policy")
        assert not is_kept("a policy"), "somebody else keeps the folder"
    finally:
        module._cache_folder.cache_clear()


@pytest.mark.skipif(not can_compile(), reason="numba is not installed: pip install 'skyshore[sim]'")
def test_another_checkout_of_the_same_version_has_to_compile_again(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    folders = []
    for checkout in ("one", "two"):
        source = tmp_path / checkout / "rules.py"
        source.parent.mkdir()
        source.write_text("def rule():\n    return 1\n")
        names = {}
        exec(compile(source.read_text(), source, "exec"), names)
        monkeypatch.setattr(module, "_kernels", {names["rule"]})
        module._cache_folder.cache_clear()
        folders.append(module._cache_folder())
    module._cache_folder.cache_clear()
    assert folders[0] != folders[1]
