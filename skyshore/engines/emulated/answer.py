"""The answer of an emulated language model: the words of the prompt, repeated, in the right number of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import cycle, islice
from zlib import crc32

from skyshore.domain.errors import InvalidTask, PromptTooLong
from skyshore.domain.llm import FinishReason, LlmInput

CHARACTERS_PER_TOKEN = 4
"""The emulated tokenizer's rule for prompts; in answers one word is one token."""
UNIT = 2**32


@dataclass(frozen=True, slots=True)
class EmulatedAnswer:
    """A complete answer, computed before the first token is due."""

    prompt_tokens: int
    tokens: list[str]
    finish_reason: FinishReason
    longest: int
    """Tokens the sampling would have allowed; a real engine reserves memory for these."""


def draft(task_id: str, request: LlmInput, context_tokens: int, mean_tokens: float) -> EmulatedAnswer:
    """Decide the answer. Its length is `max_tokens` with `ignore_eos`, else exponential around `mean_tokens`.

    The length depends on the task id (or the seed) alone, so a replay gets the same one.

    Raises:
        PromptTooLong: the prompt leaves no room in the context.
        InvalidTask: log-probabilities or a schema are requested; an emulated model has neither.
    """
    sampling = request.sampling
    if sampling.logprobs is not None:
        raise InvalidTask("an emulated engine has no log-probabilities; leave logprobs out", param="logprobs")
    if sampling.json_schema or sampling.regex:
        raise InvalidTask("an emulated engine follows no schema; leave response_format out", param="response_format")
    prompt_tokens = _prompt_tokens(request)
    longest = min(sampling.max_tokens, context_tokens - prompt_tokens)
    if longest < 1:
        raise PromptTooLong(
            f"the prompt has {prompt_tokens} tokens and the context {context_tokens}; shorten it", param="messages"
        )
    wanted = longest if sampling.ignore_eos else _drawn_length(task_id, sampling.seed, mean_tokens)
    tokens = _echo(request, min(wanted, longest))
    reason = FinishReason.LENGTH if wanted >= longest else FinishReason.STOP
    if sampling.stop and _cut_at_stop(tokens, sampling.stop):
        reason = FinishReason.STOP
    return EmulatedAnswer(prompt_tokens, tokens, reason, longest)


def _prompt_tokens(request: LlmInput) -> int:
    if request.prompt_token_ids:
        return len(request.prompt_token_ids)
    characters = sum(len(turn.content) for turn in request.messages) or len(request.prompt)
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))


def _drawn_length(task_id: str, seed: int | None, mean_tokens: float) -> int:
    share = crc32((task_id if seed is None else str(seed)).encode()) / UNIT
    return 1 + int(-mean_tokens * math.log(1.0 - share))


def _echo(request: LlmInput, count: int) -> list[str]:
    text = request.messages[-1].content if request.messages else request.prompt
    words = text.split() or [str(number) for number in request.prompt_token_ids[:64]] or ["…"]
    tokens = [f" {word}" for word in islice(cycle(words), count)]
    tokens[0] = tokens[0][1:]
    return tokens


def _cut_at_stop(tokens: list[str], stops: tuple[str, ...]) -> bool:
    """Cut in place before the first stop string; at least one (perhaps empty) token stays."""
    text = "".join(tokens)
    found = [at for at in (text.find(stop) for stop in stops if stop) if at >= 0]
    if not found:
        return False
    room = min(found)
    for index, token in enumerate(tokens):
        if len(token) >= room:
            tokens[index] = token[:room]
            del tokens[index + 1 :]
            break
        room -= len(token)
    return True
