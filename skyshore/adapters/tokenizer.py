"""Text to token ids and back, with the model's own chat template. Light enough for the profiler: no model is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import tokenizers
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from skyshore.domain.errors import Internal, InvalidTask, NotFound
from skyshore.domain.llm import ChatMessage

ROLES: Final = ("system", "user", "assistant", "tool")
KNOWN_PARTS: Final = 1024
"""Entries in the cache of token counts: system prompts and the history of a conversation repeat."""
KNOWN_PART_CHARACTERS: Final = 2048


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a model folder's `config.json` says."""

    name: str
    context_tokens: int
    vocab: int
    eos_token_ids: frozenset[int]
    bos_token_id: int
    add_bos: bool
    chat_template: str


class Tokenizer:
    """The tokenizer of one model folder; safe to share between threads."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, description: ModelDescription) -> None:
        self._tokenizer = tokenizer
        self.description = description
        self._template = description.chat_template
        self._environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._environment.globals["raise_exception"] = _raise
        self._compiled = self._compile()
        self._borders = _borders(tokenizer)
        self._count_known = lru_cache(KNOWN_PARTS)(self._count)

    @classmethod
    def open(cls, model_dir: Path) -> Tokenizer:
        """Read `tokenizer.json` and `config.json`.

        Raises:
            NotFound: one of the files is missing.
            Internal: one of them is damaged.
        """
        for name in ("tokenizer.json", "config.json"):
            if not (model_dir / name).is_file():
                raise NotFound(f"{model_dir} has no {name}; run `skyshore models fetch` for this model")
        try:
            config: dict[str, Any] = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
            description = ModelDescription(
                name=config["name"],
                context_tokens=config["context_tokens"],
                vocab=config["vocab"],
                eos_token_ids=frozenset(config["eos_token_ids"]),
                bos_token_id=config["bos_token_id"],
                add_bos=config["add_bos"],
                chat_template=config["chat_template"],
            )
        except (ValueError, KeyError) as error:
            raise Internal(f"{model_dir}/config.json is damaged ({error!r}); build the model again") from error
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception for any damage
            raise Internal(f"{model_dir}/tokenizer.json is damaged ({error}); build the model again") from error
        return cls(tokenizer, description)

    def encode(self, text: str, *, add_bos: bool | None = None) -> list[int]:
        """Token ids of `text`; a beginning-of-sequence token goes first where the model wants one."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        wanted = self.description.add_bos if add_bos is None else add_bos
        if wanted and ids[:1] != [self.description.bos_token_id]:
            ids.insert(0, self.description.bos_token_id)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def render_chat(self, messages: Sequence[ChatMessage]) -> str:
        """The conversation as prompt text in the model's chat format, ready for the answer.

        Raises:
            InvalidTask: no messages, an unknown role, or a conversation that the template refuses.
        """
        if not messages:
            raise InvalidTask("messages must not be empty", param="messages")
        for message in messages:
            if message.role not in ROLES:
                known = ", ".join(ROLES)
                raise InvalidTask(f"unknown role {message.role!r}; use one of {known}", param="messages")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        special = {"bos_token": self._token(self.description.bos_token_id), "eos_token": self._end_token()}
        try:
            rendered: str = self._compiled.render(messages=turns, add_generation_prompt=True, **special)
        except (TemplateError, TypeError, ValueError, OverflowError) as error:
            raise InvalidTask(
                f"the model's chat template refuses this conversation: {error}", param="messages"
            ) from error
        return rendered

    def encode_chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of a conversation; same failures as `render_chat`."""
        return self.encode(self.render_chat(messages), add_bos=False)

    def count_chat(self, messages: Sequence[ChatMessage]) -> int:
        """How many prompt tokens a conversation is; same failures as `render_chat`."""
        rendered = self.render_chat(messages)
        if self._borders is None:
            return self._count(rendered)
        parts = self._borders.split(rendered)
        return sum(
            self._count_known(part) if len(part) <= KNOWN_PART_CHARACTERS else self._count(part)
            for part in parts
            if part
        )

    def _count(self, text: str) -> int:
        # The batch call skips the offsets of tokens in the text, which are most of the work.
        (counted,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return len(counted)

    def token_bytes(self) -> list[bytes]:
        """The bytes of each token id; special tokens have none."""
        special = {index for index, added in self._tokenizer.get_added_tokens_decoder().items() if added.special}
        user_defined = self._tokenizer.get_added_tokens_decoder().keys() - special
        byte_level = isinstance(self._tokenizer.decoder, tokenizers.decoders.ByteLevel)
        table = [b""] * self.description.vocab
        for token, index in self._tokenizer.get_vocab(with_added_tokens=True).items():
            if index in special or index >= len(table):
                continue
            if index in user_defined:
                table[index] = token.encode()
            else:
                table[index] = _byte_level_bytes(token) if byte_level else _sentencepiece_bytes(token)
        return table

    def to_json(self) -> str:
        """The whole tokenizer in the `tokenizer.json` format."""
        text: str = self._tokenizer.to_str()
        return text

    def _compile(self) -> Any:
        if not self._template:
            return self._environment.from_string("{{ raise_exception('this model has no chat template') }}")
        try:
            return self._environment.from_string(self._template)
        except TemplateError as error:
            raise Internal(f"the chat template of {self.description.name!r} is broken: {error}") from error

    def _token(self, index: int) -> str:
        return self._tokenizer.id_to_token(index) or "" if index >= 0 else ""

    def _end_token(self) -> str:
        return self._token(min(self.description.eos_token_ids, default=-1))


def _raise(message: str) -> None:
    raise TemplateError(message)


def _borders(tokenizer: tokenizers.Tokenizer) -> re.Pattern[str] | None:
    """Finds special tokens in text, if this tokenizer reads what lies between two of them by itself; else None."""
    added = tokenizer.get_added_tokens_decoder().values()
    plain = all(not (token.lstrip or token.rstrip or token.single_word or token.normalized) for token in added)
    if not added or not plain or not isinstance(tokenizer.decoder, tokenizers.decoders.ByteLevel):
        return None
    longest_first = sorted((token.content for token in added), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's byte alphabet: visible Latin-1 characters map to themselves, other bytes to characters from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_ALPHABET: Final = _byte_alphabet()


def _byte_level_bytes(token: str) -> bytes:
    return bytes(_ALPHABET[character] for character in token)


def _sentencepiece_bytes(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()
