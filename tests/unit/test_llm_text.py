from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.engines.llm.costs import StepCosts
from skyshore.engines.llm.text import TextStream


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(borders)]


TEXTS = st.text(alphabet=st.sampled_from("ab<|>é北😀\n"), max_size=30)
STOPS = st.lists(st.text(alphabet="ab<|>é", min_size=1, max_size=4), min_size=1, max_size=3)
CUTS = st.lists(st.integers(0, 200), max_size=40)


@settings(deadline=None)
@given(text=st.text(max_size=40), cuts=CUTS)
def test_any_cut_of_the_bytes_streams_the_text_in_whole_characters(text: str, cuts: list[int]) -> None:
    stream = TextStream(())
    sent = [stream.push(piece) for piece in pieces_of(text.encode(), cuts)]
    assert "".join(sent) + stream.finish() == text
    if "�" not in text:
        assert all("�" not in part for part in sent)


def test_text_is_sent_as_soon_as_a_character_is_whole() -> None:
    stream = TextStream(())
    euro = "€".encode()
    assert [stream.push(piece) for piece in (b"a", euro[:1], euro[1:2], euro[2:] + b"b")] == ["a", "", "", "€b"]


def test_an_answer_that_ends_inside_a_character_shows_the_replacement_character() -> None:
    stream = TextStream(())
    assert stream.push("x€".encode()[:-1]) == "x"
    assert stream.finish() == "�"


@settings(deadline=None)
@given(
    text=TEXTS, cuts=CUTS, stops=st.lists(st.text(alphabet="ab<|>é", min_size=1, max_size=4), min_size=1, max_size=3)
)
def test_stop_strings_cut_at_their_first_occurrence_across_any_borders(
    text: str, cuts: list[int], stops: list[str]
) -> None:
    stream = TextStream(stops)
    sent = []
    for piece in pieces_of(text.encode(), cuts):
        sent.append(stream.push(piece))
        if stream.stopped:
            break
    answer = "".join(sent) + stream.finish()
    found = [text.find(stop) for stop in stops if stop in text]
    if not found:
        assert answer == text
        assert not stream.stopped
        return
    assert stream.stopped
    # A longer stop that starts earlier may still be open when a shorter one inside it is complete.
    assert text.startswith(answer)
    assert not any(stop in answer for stop in stops)
    if len(stops) == 1:
        assert answer == text[: found[0]]


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    stream = TextStream(("END",))
    assert stream.push(b"the E") == "the "
    assert stream.push(b"N") == ""
    assert stream.push(b"T") == "ENT"
    assert stream.push(b"EN") == ""
    assert stream.push(b"D and more") == ""
    assert stream.stopped
    assert stream.push(b"later") == ""
    assert stream.finish() == ""


def test_held_text_comes_at_the_end_when_no_stop_string_came() -> None:
    stream = TextStream(("END",))
    assert stream.push(b"the EN") == "the "
    assert stream.finish() == "EN"


def test_a_chunk_is_bounded_by_the_stall_it_may_cause() -> None:
    costs = StepCosts(max_chunk_tokens=256, stall_ratio=1.0)
    assert costs.chunk_tokens(decoding=0) == 256
    for _ in range(50):
        costs.decoded(0.050)
        costs.prefilled(100, 0.200)
    assert costs.chunk_tokens(decoding=4) == pytest.approx(25, abs=1)
    assert costs.chunk_tokens(decoding=0) == 256


def test_prompts_that_wait_together_may_delay_together() -> None:
    costs = StepCosts(max_chunk_tokens=256, stall_ratio=1.0)
    costs.decoded(0.050)
    costs.prefilled(100, 0.200)
    alone = costs.chunk_tokens(decoding=4)
    assert costs.chunk_tokens(decoding=4, prompts=3) == pytest.approx(3 * alone, abs=3)
    assert costs.chunk_tokens(decoding=4, prompts=100) == 256


def test_small_chunks_do_not_talk_themselves_into_staying_small() -> None:
    costs = StepCosts(max_chunk_tokens=256, stall_ratio=1.0)
    costs.decoded(0.050)
    costs.prefilled(256, 0.010 + 256 * 0.001)
    for _ in range(200):
        chunk = costs.chunk_tokens(decoding=4)
        costs.prefilled(chunk, 0.010 + chunk * 0.001)
    assert costs.chunk_tokens(decoding=4) == pytest.approx(40, abs=8)


def test_a_chunk_is_never_so_small_that_a_prompt_cannot_advance() -> None:
    costs = StepCosts(max_chunk_tokens=256, stall_ratio=0.01)
    assert costs.chunk_tokens(decoding=1) == 8
    costs.decoded(0.001)
    costs.prefilled(10, 1.0)
    assert costs.chunk_tokens(decoding=1) == 8
    assert StepCosts(max_chunk_tokens=4, stall_ratio=1).chunk_tokens(decoding=1) == 4
