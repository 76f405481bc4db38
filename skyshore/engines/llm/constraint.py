"""Constrains an answer to a JSON schema or a regular expression: which tokens may come next."""

from __future__ import annotations

import threading
from typing import Any, Final

import llguidance
import numpy as np
from numpy.typing import NDArray

from skyshore.adapters.tokenizer import Tokenizer
from skyshore.domain.errors import Internal, InvalidTask
from skyshore.domain.llm import Sampling

_BLANKS: Final = r"[ \n]{0,6}"
"""Bounded, because a small model may emit blanks until its tokens run out."""


class Constraint:
    """The state of one constrained answer."""

    def __init__(self, matcher: Any, vocab: int) -> None:
        self._matcher = matcher
        self._vocab = vocab

    def mask(self) -> NDArray[np.bool_]:
        """True for every token that may come next."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        return bits[: self._vocab].astype(np.bool_)

    def accept(self, token: int) -> bool:
        """Record the sampled token; true when the answer is complete.

        Raises:
            Internal: the matcher failed, for example because the grammar is over its limits.
        """
        self._matcher.consume_token(token)
        if self._matcher.is_error():
            raise Internal(f"the constraint on the answer failed: {self._matcher.get_error()}")
        return bool(self._matcher.is_stopped())


class ConstraintCompiler:
    """Compiles against one tokenizer, whose index is built at the first use. Safe to call from any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._index: Any = None

    def compile(self, sampling: Sampling) -> Constraint:
        """A fresh constraint.

        Raises:
            InvalidTask: schema or expression cannot be read, uses what the library does not support, or both are given.
        """
        if sampling.json_schema and sampling.regex:
            raise InvalidTask("an answer follows a JSON schema or a regex, not both", param="response_format")
        with self._lock:
            if self._index is None:
                ends = sorted(self._tokenizer.description.eos_token_ids)
                self._index = llguidance.LLTokenizer(self._tokenizer.to_json(), eos_token=ends)
        try:
            grammar = _grammar(sampling)
        except ValueError as error:
            raise InvalidTask(f"the JSON schema or regex cannot be read: {error}", param="response_format") from error
        matcher = llguidance.LLMatcher(self._index, grammar)
        if matcher.is_error():
            why = matcher.get_error()
            raise InvalidTask(f"the JSON schema or regex cannot be used: {why}", param="response_format")
        return Constraint(matcher, self._tokenizer.description.vocab)


def _grammar(sampling: Sampling) -> Any:
    if sampling.regex:
        return llguidance.LLMatcher.grammar_from_regex(sampling.regex)
    blanks: Any = {"whitespace_pattern": _BLANKS}
    return llguidance.LLMatcher.grammar_from_json_schema(sampling.json_schema, defaults=blanks)
