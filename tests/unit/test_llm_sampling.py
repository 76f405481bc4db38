import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skyshore.domain.errors import InvalidTask
from skyshore.domain.llm import Sampling
from skyshore.engines.llm.sampling import RowSampler, check_sampling, logprobs, sample

F32 = NDArray[np.float32]
LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=40)


def row(sampling: Sampling, seed: int = 0, prompt: tuple[int, ...] = ()) -> RowSampler:
    return RowSampler(sampling, np.array(prompt, np.int64), np.random.default_rng(seed))


def draws(logits: list[float], sampling: Sampling, count: int = 4000) -> NDArray[np.int64]:
    sampler = row(sampling)
    batch = np.tile(np.array(logits, np.float32), (count, 1))
    return sample(batch, [sampler] * count, [None] * count)


def softmax(logits: list[float], temperature: float = 1.0) -> NDArray[np.float64]:
    weights = np.exp((np.array(logits) - max(logits)) / temperature)
    return np.asarray(weights / weights.sum())


def frequencies(tokens: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    return np.bincount(tokens, minlength=size) / tokens.size


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_tokens_follow_the_softmax_at_the_given_temperature(temperature: float) -> None:
    logits = [0.0, 1.0, 2.0, -1.0]
    found = frequencies(draws(logits, Sampling(temperature=temperature)), 4)
    np.testing.assert_allclose(found, softmax(logits, temperature), atol=0.03)


@settings(deadline=None)
@given(logits=LOGITS)
def test_temperature_zero_takes_the_likeliest(logits: list[float]) -> None:
    batch = np.array([logits], np.float32)
    assert sample(batch.copy(), [row(Sampling(temperature=0))], [None])[0] == batch[0].argmax()


def test_top_k_keeps_the_k_likeliest_in_proportion() -> None:
    logits = [0.0, 3.0, 2.0, 1.0, -1.0]
    found = frequencies(draws(logits, Sampling(top_k=2)), 5)
    expected = softmax(logits) * np.array([0, 1, 1, 0, 0])
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.03)
    assert found[[0, 3, 4]].sum() == 0


def test_min_p_drops_what_is_rare_beside_the_likeliest() -> None:
    logits = [0.0, math.log(0.5), math.log(0.09), math.log(0.11)]
    found = frequencies(draws(logits, Sampling(min_p=0.1)), 4)
    assert found[2] == 0
    assert min(found[[0, 1, 3]]) > 0


@settings(deadline=None)
@given(logits=LOGITS, top_p=st.floats(0.05, 0.999))
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits: list[float], top_p: float) -> None:
    probabilities = softmax([float(np.float32(value)) for value in logits])
    order = np.argsort(-probabilities, kind="stable")
    reached = np.cumsum(probabilities[order])
    nucleus = set(order[: int(np.searchsorted(reached, top_p)) + 1].tolist())
    # Ties and rounding at the border may swap equals; nothing below the border's probability may appear.
    border = min(probabilities[list(nucleus)])
    for token in set(draws(logits, Sampling(top_p=top_p), count=50).tolist()):
        assert probabilities[token] >= border - 1e-6


def test_top_p_reaches_every_token_of_the_nucleus() -> None:
    logits = [math.log(share) for share in (0.4, 0.3, 0.2, 0.1)]
    found = frequencies(draws(logits, Sampling(top_p=0.75)), 4)
    np.testing.assert_allclose(found, [0.4 / 0.9, 0.3 / 0.9, 0.2 / 0.9, 0], atol=0.03)


def test_penalties_lower_what_was_said() -> None:
    sampler = row(Sampling(temperature=0, presence_penalty=0.5, frequency_penalty=0.25))
    sampler.note(1)
    sampler.note(1)
    assert sample(np.array([[0.0, 0.99, -1]], np.float32), [sampler], [None])[0] == 0
    assert sample(np.array([[0.0, 1.01, -1]], np.float32), [sampler], [None])[0] == 1


def test_repetition_penalty_counts_the_prompt_and_works_on_both_signs() -> None:
    sampler = row(Sampling(temperature=0, repetition_penalty=2.0), prompt=(0, 2))
    assert sample(np.array([[1.9, 1.0, -5]], np.float32), [sampler], [None])[0] == 1
    assert sample(np.array([[-1.0, -1.9, -1.0]], np.float32), [sampler], [None])[0] == 1
    assert sample(np.array([[-1.0, -2.1, -1.0]], np.float32), [sampler], [None])[0] == 0


@settings(deadline=None)
@given(logits=LOGITS, allowed=st.data())
def test_a_mask_bars_tokens_at_any_temperature(logits: list[float], allowed: st.DataObject) -> None:
    mask = np.array([allowed.draw(st.booleans()) for _ in logits])
    mask[allowed.draw(st.integers(0, len(logits) - 1))] = True
    for temperature in (0.0, 1.5):
        token = sample(np.array([logits], np.float32), [row(Sampling(temperature=temperature))], [mask])[0]
        assert mask[token]


def test_a_seed_gives_the_same_tokens_in_any_batch() -> None:
    rng = np.random.default_rng(5)
    steps = rng.standard_normal((20, 50)).astype(np.float32) * 3
    chosen = Sampling(temperature=0.9, top_p=0.9, top_k=20)
    alone_sampler = row(chosen, seed=11)
    alone = [int(sample(step[None].copy(), [alone_sampler], [None])[0]) for step in steps]
    shared_sampler, others = row(chosen, seed=11), [row(Sampling(temperature=2.0), seed=place) for place in range(3)]
    shared = []
    for number, step in enumerate(steps):
        company = others[: number % 4]
        batch = np.concatenate([rng.standard_normal((len(company), 50)).astype(np.float32), step[None]])
        shared.append(int(sample(batch, [*company, shared_sampler], [None] * len(batch))[-1]))
    assert shared == alone
    other_seed = row(chosen, seed=12)
    assert [int(sample(step[None].copy(), [other_seed], [None])[0]) for step in steps] != alone


def test_greedy_and_drawn_rows_share_a_batch() -> None:
    logits = np.array([[0, 5, 0], [9, 0, 0], [0, 0, 7]], np.float32)
    rows = [row(Sampling(temperature=0)), row(Sampling(temperature=1, top_k=1)), row(Sampling(temperature=0))]
    assert sample(logits, rows, [None] * 3).tolist() == [1, 0, 2]


@settings(deadline=None)
@given(logits=LOGITS)
def test_logprobs_are_the_log_softmax_and_sorted(logits: list[float]) -> None:
    values = np.array(logits, np.float32)
    own, top = logprobs(values, 0, 2)
    expected = np.log(softmax(values.tolist()))
    assert own == pytest.approx(expected[0], abs=1e-4)
    assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
    assert top[0][1] == pytest.approx(expected.max(), abs=1e-4)
    for token, value in top:
        assert value == pytest.approx(expected[token], abs=1e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 1.1),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -3.0),
        ("repetition_penalty", 0.0),
        ("logprobs", 21),
        ("stop", ("",)),
        ("stop", ("x" * 300,)),
        ("stop", tuple("abcdefghijklmnopqr")),
    ],
)
def test_absurd_settings_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidTask, match="stop" if field == "stop" else field) as raised:
        check_sampling(replace(Sampling(), **{field: value}))  # type: ignore[arg-type]
    assert raised.value.param == field


def test_ordinary_settings_pass() -> None:
    check_sampling(Sampling())
    check_sampling(Sampling(temperature=0, top_p=0.5, top_k=40, min_p=0.05, seed=-1, logprobs=20, stop=("\n",)))
