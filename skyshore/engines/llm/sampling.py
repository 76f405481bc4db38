"""Samples the next token of each row of a batch from its logits. Pure: randomness comes with each row.

A row's token depends on its own logits, settings and generator alone, and a generator is asked exactly once per token,
so an answer is the same alone and batched. Without a seed of the caller, the task id gives one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.errors import InvalidTask
from skyshore.domain.llm import Sampling

F32 = NDArray[np.float32]

MAX_LOGPROBS = 20
_MAX_STOPS = 16
_MAX_STOP_CHARS = 256
_BLOCK = 256


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
    """Refuse invalid settings.

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
    np.exp(weights, out=weights)  # relative to the likeliest token, whose weight is 1
    pairs = zip(weights, rows, strict=True)
    return np.array([_pick(weight, row.sampling, row.generator.random()) for weight, row in pairs], np.int64)


def _pick(weights: F32, chosen: Sampling, point: float) -> int:
    """The token at `point` (0..1) of one row's distribution."""
    kept = _filtered(weights, chosen)
    if kept is not None:
        return int(kept[_at(weights[kept], point)])
    # Summing blocks first spares a running sum over the whole vocabulary, the most expensive step.
    blocks = np.add.reduceat(weights, np.arange(0, weights.size, _BLOCK), dtype=np.float64)
    cumulative = np.cumsum(blocks)
    block = _at(blocks, point)
    inside = (point * cumulative[-1] - (cumulative[block] - blocks[block])) / blocks[block]
    start = block * _BLOCK
    return start + _at(weights[start : start + _BLOCK], min(max(inside, 0.0), 1.0))


def _at(weights: NDArray[np.floating[Any]], point: float) -> int:
    """Index of the weight in which the share `point` of their sum falls; never one of weight 0."""
    cumulative = np.cumsum(weights, dtype=np.float64)
    total = cumulative[-1]
    return int(np.searchsorted(cumulative, min(point * total, np.nextafter(total, 0)), side="right"))


def _filtered(weights: F32, chosen: Sampling) -> NDArray[np.int64] | None:
    """What top-k, min-p and top-p (arXiv 1904.09751) leave, applied in this order; None if nothing is filtered."""
    kept: NDArray[np.int64] | None = None
    if 0 < chosen.top_k < weights.size:
        kept = _upper_set(weights, lambda above: above.size >= chosen.top_k)
        kept = kept[np.argpartition(weights[kept], -chosen.top_k)[-chosen.top_k :]]
    if chosen.min_p:
        kept = np.flatnonzero(weights >= chosen.min_p) if kept is None else kept[weights[kept] >= chosen.min_p]
    if chosen.top_p < 1:
        kept = _nucleus(weights, kept, chosen.top_p)
    return kept


def _nucleus(weights: F32, tokens: NDArray[np.int64] | None, top_p: float) -> NDArray[np.int64]:
    """The fewest of `tokens` (None for all) that make up the share `top_p` of their weight."""
    wanted = top_p * float((weights if tokens is None else weights[tokens]).sum(dtype=np.float64))
    if tokens is None:
        tokens = _upper_set(weights, lambda above: float(weights[above].sum(dtype=np.float64)) >= wanted)
    own = weights[tokens]
    order = np.argsort(-own, kind="stable")
    before = np.cumsum(own[order], dtype=np.float64) - own[order]
    return np.asarray(tokens[order[before < wanted]], np.int64)


def _upper_set(weights: F32, enough: Callable[[NDArray[np.int64]], bool]) -> NDArray[np.int64]:
    """All tokens above some weight, and few of them where `enough`: sorting few is cheaper than a vocabulary."""
    for threshold in (1e-2, 1e-3, 1e-4, 1e-5):
        above = np.flatnonzero(weights > threshold)
        if enough(above):
            return above
    return np.arange(weights.size)


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
