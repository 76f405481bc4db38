"""Draws the next token of each row of a batch from its logits. Pure: randomness comes with each row.

A row's token depends on its own logits, settings and generator alone, and a generator is asked exactly once per token,
so an answer with a seed is the same alone and batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.errors import InvalidTask
from skyshore.domain.llm import Sampling

F32 = NDArray[np.float32]

MAX_LOGPROBS = 20
_MAX_STOPS = 16
_MAX_STOP_CHARS = 256


@dataclass(slots=True, eq=False)
class RowSampler:
    """Sampling state of one request."""

    sampling: Sampling
    prompt_ids: NDArray[np.int64]
    """Distinct tokens of the prompt; the repetition penalty counts them too."""
    generator: np.random.Generator
    counts: dict[int, int] = field(default_factory=dict)
    """How often each token was generated."""

    @property
    def plain_greedy(self) -> bool:
        """Whether the arg-max of the raw logits is the answer."""
        return self.sampling.temperature == 0 and not self.penalises

    @property
    def penalises(self) -> bool:
        """Whether logits depend on what came before."""
        chosen = self.sampling
        return bool(chosen.presence_penalty or chosen.frequency_penalty or chosen.repetition_penalty != 1)

    def note(self, token: int) -> None:
        """Count a generated token."""
        self.counts[token] = self.counts.get(token, 0) + 1


def check_sampling(sampling: Sampling) -> None:
    """Refuse settings that mean nothing.

    Raises:
        InvalidTask: naming the field and its range.
    """
    ranges: tuple[tuple[str, float, float, float], ...] = (
        ("max_tokens", sampling.max_tokens, 1, 1 << 30),
        ("temperature", sampling.temperature, 0, 100),
        ("top_p", sampling.top_p, 1e-6, 1),
        ("top_k", sampling.top_k, 0, 1 << 30),
        ("min_p", sampling.min_p, 0, 1),
        ("presence_penalty", sampling.presence_penalty, -2, 2),
        ("frequency_penalty", sampling.frequency_penalty, -2, 2),
        ("repetition_penalty", sampling.repetition_penalty, 0.01, 100),
        ("logprobs", sampling.logprobs or 0, 0, MAX_LOGPROBS),
        ("seed", abs(sampling.seed or 0), 0, (1 << 64) - 1),
        ("stop", len(sampling.stop), 0, _MAX_STOPS),
    )
    for name, value, low, high in ranges:
        if not low <= value <= high:  # written so that NaN fails too
            raise InvalidTask(f"{name} must lie between {low} and {high}, not {value}", param=name)
    if any(not 1 <= len(stop) <= _MAX_STOP_CHARS for stop in sampling.stop):
        raise InvalidTask(f"each stop string must have 1 to {_MAX_STOP_CHARS} characters", param="stop")


def sample(logits: F32, rows: Sequence[RowSampler], masks: Sequence[NDArray[np.bool_] | None]) -> NDArray[np.int64]:
    """One token per row of `logits` [rows, vocab], which is overwritten. `masks` bars tokens where False."""
    for row, sampler, mask in zip(logits, rows, masks, strict=True):
        if sampler.penalises:
            _penalise(row, sampler)
        if mask is not None:
            row[~mask] = -np.inf
    tokens: NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
    drawn = [index for index, sampler in enumerate(rows) if sampler.sampling.temperature > 0]
    if drawn:
        tokens[drawn] = _draw(logits if len(drawn) == len(rows) else logits[drawn], [rows[index] for index in drawn])
    return tokens


def _penalise(row: F32, sampler: RowSampler) -> None:
    chosen = sampler.sampling
    generated = np.fromiter(sampler.counts.keys(), np.int64, len(sampler.counts))
    if chosen.repetition_penalty != 1:
        seen = np.union1d(generated, sampler.prompt_ids)
        values = row[seen]
        row[seen] = np.where(values > 0, values / chosen.repetition_penalty, values * chosen.repetition_penalty)
    if generated.size:
        counts = np.fromiter(sampler.counts.values(), np.float32, len(sampler.counts))
        row[generated] -= chosen.presence_penalty + chosen.frequency_penalty * counts


def _draw(logits: F32, rows: Sequence[RowSampler]) -> NDArray[np.int64]:
    """Inverse-transform sampling over the filtered softmax of every row."""
    temperatures = np.array([row.sampling.temperature for row in rows], np.float32)
    weights = logits - logits.max(axis=1, keepdims=True)
    weights /= temperatures[:, None]
    np.exp(weights, out=weights)  # relative to the likeliest token, which stands at 1
    for weight, sampler in zip(weights, rows, strict=True):
        _filter(weight, sampler.sampling)
    cumulative = np.cumsum(weights, axis=1, dtype=np.float64)
    points = np.array([row.generator.random() for row in rows]) * cumulative[:, -1]
    return np.array([np.searchsorted(*pair, side="right") for pair in zip(cumulative, points, strict=True)], np.int64)


def _filter(weights: F32, chosen: Sampling) -> None:
    """Zero what top-k, min-p and top-p (arXiv 1904.09751) leave out, in this order."""
    if 0 < chosen.top_k < weights.size:
        threshold = np.partition(weights, -chosen.top_k)[-chosen.top_k]
        weights[weights < threshold] = 0
    if chosen.min_p:
        weights[weights < chosen.min_p] = 0
    if chosen.top_p < 1:
        total = weights.sum(dtype=np.float64)
        # Tokens rarer than this add up to less than 1 - top_p even together, so they lie outside the nucleus.
        candidates = np.flatnonzero(weights > (1 - chosen.top_p) * total / weights.size)
        order = candidates[np.argsort(-weights[candidates], kind="stable")]
        before = np.cumsum(weights[order], dtype=np.float64) - weights[order]
        kept = order[before < chosen.top_p * total]
        values = weights[kept]
        weights[:] = 0
        weights[kept] = values


def logprobs(row: F32, token: int, alternatives: int) -> tuple[float, list[tuple[int, float]]]:
    """Natural-log probability of `token` under the raw logits of one row, and of the likeliest tokens."""
    shifted = row - row.max()
    normaliser = float(np.log(np.exp(shifted, dtype=np.float64).sum()))
    likeliest: list[tuple[int, float]] = []
    if alternatives:
        top = np.argpartition(shifted, -alternatives)[-alternatives:]
        top = top[np.argsort(-shifted[top], kind="stable")]
        likeliest = [(int(each), float(shifted[each]) - normaliser) for each in top]
    return float(shifted[token]) - normaliser, likeliest
