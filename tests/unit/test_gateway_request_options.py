"""Headers and fields to demands."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.request_options import RequestOptions, new_task_id, read_request_options, trace_of
from skyshore.domain.errors import InvalidTask
from skyshore.domain.task import ServiceClass

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_class_fills_in_what_is_not_said() -> None:
    options = read_request_options({"x-skyshore-class": "interactive"})
    assert (options.service_class, options.deadline_s, options.min_quality) == ("interactive", 20.0, 0.0)
    assert read_request_options({}).service_class == "standard"


def test_headers_beat_the_class_and_arguments_beat_headers() -> None:
    headers = {"x-skyshore-deadline-s": "5", "x-skyshore-min-quality": "0.5"}
    options = read_request_options(headers)
    assert (options.deadline_s, options.min_quality) == (5.0, 0.5)
    options = read_request_options(headers, service_class="batch", deadline_s=7.0, min_quality=0.0)
    assert (options.service_class, options.deadline_s, options.min_quality) == ("batch", 7.0, 0.0)


def test_classes_of_a_scenario_replace_the_known_ones() -> None:
    classes = {"standard": ServiceClass("standard", 3.0, 0.25)}
    options = read_request_options({}, classes=classes)
    assert (options.deadline_s, options.min_quality) == (3.0, 0.25)


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "-inf", "1e9", "five", "0x10"])
def test_impossible_deadline_is_refused_unless_empty(value: str) -> None:
    headers = {"x-skyshore-deadline-s": value}
    if value == "":
        assert read_request_options(headers).deadline_s == 60.0
        return
    with pytest.raises(InvalidTask) as caught:
        read_request_options(headers)
    assert caught.value.param == "x-skyshore-deadline-s"


def test_unknown_class_names_where_it_was_said() -> None:
    with pytest.raises(InvalidTask, match="batch, interactive, standard") as caught:
        read_request_options({"x-skyshore-class": "royal"})
    assert caught.value.param == "x-skyshore-class"
    with pytest.raises(InvalidTask) as caught:
        read_request_options({}, service_class="royal")
    assert caught.value.param == "class"


def test_valid_trace_is_carried_and_a_broken_one_replaced() -> None:
    assert trace_of(TRACE) == TRACE
    broken = ["", "00-xyz", TRACE.upper(), "01" + TRACE[2:], TRACE + "-more", f"00-{'0' * 32}-00f067aa0ba902b7-01"]
    for trace in broken:
        made = trace_of(trace)
        assert made != trace
        assert trace_of(made) == made
    assert trace_of("") != trace_of("")


@given(st.text(max_size=200))
def test_request_id_is_always_safe_to_send_back(given_id: str) -> None:
    answered = read_request_options({"x-request-id": given_id}).request_id
    assert re.fullmatch(r"[\x21-\x7e]{1,128}", answered)
    if re.fullmatch(r"[\x21-\x7e]{1,128}", given_id):
        assert answered == given_id


@given(st.dictionaries(st.sampled_from(["x-skyshore-class", "x-skyshore-deadline-s", "traceparent"]), st.text()))
def test_no_header_whatever_breaks_more_than_its_own_request(headers: dict[str, str]) -> None:
    try:
        assert isinstance(read_request_options(headers), RequestOptions)
    except InvalidTask as error:
        assert error.param in headers


def test_task_ids_are_unique_and_short() -> None:
    made = {new_task_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(task_id) == 32 for task_id in made)
