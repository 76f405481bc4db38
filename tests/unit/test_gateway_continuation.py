"""An answer that goes on at another node, at any cut and with any division into chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.llm.continuation import Continuation, Diverged, Sent
from skyshore.domain.llm import FinishReason, TokenChunk, TokenLogprob

tokens = st.lists(st.text("ab é", max_size=3), min_size=1, max_size=12)
sizes = st.lists(st.integers(1, 4), min_size=12, max_size=12)


def chunks(words: list[str], sizes: list[int]) -> list[TokenChunk]:
    """The answer in chunks of these numbers of tokens; the last one ends it."""
    found, at = [], 0
    for size in sizes:
        if at >= len(words):
            break
        part = words[at : at + size]
        at += size
        last = at >= len(words)
        reason = FinishReason.STOP if last else None
        logprobs = tuple(TokenLogprob(word, -0.5) for word in part)
        found.append(TokenChunk("".join(part), len(part), logprobs, reason, 5 if last else 0, 2 if last else 0))
    return found


@given(tokens, sizes, sizes, st.data())
def test_nothing_is_missing_and_nothing_is_there_twice(
    words: list[str], first: list[int], second: list[int], data: st.DataObject
) -> None:
    began = chunks(words, first)
    got = began[: data.draw(st.integers(0, len(began)), label="chunks that arrived before the node died")]
    sent = Sent()
    for chunk in got:
        sent.add(chunk)
    continuation = Continuation(sent)
    got = got + [new for chunk in chunks(words, second) if (new := continuation.take(chunk))]
    assert "".join(chunk.text for chunk in got) == "".join(words)
    assert sum(chunk.token_count for chunk in got) == len(words)
    assert [entry.token for chunk in got for entry in chunk.logprobs] == words
    assert [chunk.finish_reason for chunk in got] == [None] * (len(got) - 1) + [FinishReason.STOP]
    assert (got[-1].prompt_tokens, got[-1].cached_tokens) == (5, 2)


@pytest.mark.parametrize("other", [["a", "c"], ["a"], ["x"], ["ab", "x"]])
def test_another_answer_is_noticed(other: list[str]) -> None:
    sent = Sent()
    for chunk in chunks(["a", "b", "c", "d"], [1] * 4)[:3]:
        sent.add(chunk)
    continuation = Continuation(sent)
    with pytest.raises(Diverged):
        for chunk in chunks(other, [1] * 4):
            assert continuation.take(chunk) is None
