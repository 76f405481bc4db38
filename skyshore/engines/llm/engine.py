"""The asyncio side of the engine: it checks requests, feeds the engine thread and streams the results."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import numpy as np

from skyshore.adapters.tokenizer import Tokenizer
from skyshore.domain.errors import InvalidTask, NodeUnavailable, PromptTooLong, QueueFull, SkyshoreError
from skyshore.domain.llm import LlmInput, TokenChunk
from skyshore.domain.node import EngineLoad
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.task import Task
from skyshore.engines.llm.constraint import Constraint, ConstraintCompiler
from skyshore.engines.llm.costs import StepCosts
from skyshore.engines.llm.decoder import Decoder
from skyshore.engines.llm.errors import EngineMisconfigured
from skyshore.engines.llm.generation import Generation, Timing
from skyshore.engines.llm.kv_ledger import KvLimits
from skyshore.engines.llm.sampling import RowSampler, check_sampling
from skyshore.engines.llm.scheduler import StepScheduler
from skyshore.engines.llm.sequence import Sequence
from skyshore.engines.llm.settings import LlmEngineSettings
from skyshore.engines.llm.step_loop import Item, StepLoop, StepReport
from skyshore.engines.llm.text import TextStream

_LOAD_WINDOW_S: Final = 1.0
_INLINE_CHARS: Final = 16_384
"""Longer prompts are tokenised off the event loop."""
_FIRST_GUESS_S: Final = 2.0
_WEIGHT: Final = 0.1
"""Weight of the newest request in the mean duration, from which `retry_after_s` is computed."""


class OnnxLlmEngine:
    """Continuous batching of one model; implements `skyshore.ports.LlmEngine`."""

    def __init__(self, settings: LlmEngineSettings, tokenizer: Tokenizer, decoder: Decoder) -> None:
        """Call `start` instead; this must run on the event loop that will use the engine."""
        self.model = settings.model or settings.model_dir.name
        self.tokenizer = tokenizer
        self._settings = settings
        self._context_tokens = min(settings.context_tokens, tokenizer.description.context_tokens)
        self._vocabulary = tokenizer.token_bytes()
        self._constraints = ConstraintCompiler(tokenizer)
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, _Stream] = {}
        self._request_ids = itertools.count()
        self._recent: deque[StepReport] = deque()
        self._newest = StepReport(0.0)
        self._request_s = _FIRST_GUESS_S
        self._closed = False
        costs = StepCosts(settings.prefill_chunk_tokens, settings.stall_ratio)
        limits = kv_limits(settings, decoder, self._context_tokens)
        self.kv_tokens = limits.budget_tokens
        """Tokens whose keys and values the memory budget holds, all requests together."""
        scheduler = StepScheduler(limits)
        self._steps = StepLoop(decoder, scheduler, costs, report=self._post, clock=time.monotonic)
        self._steps.start()

    @classmethod
    async def start(cls, settings: LlmEngineSettings) -> OnnxLlmEngine:
        """Load the model and start the engine thread.

        Raises:
            NotFound: the model folder lacks a file.
            EngineMisconfigured: the settings do not fit the model or each other.
        """
        tokenizer, decoder = await asyncio.to_thread(_load, settings)
        return cls(settings, tokenizer, decoder)

    async def generate(self, task: Task, request: LlmInput) -> AsyncIterator[TokenChunk | WorkerOutcome]:
        """See `skyshore.ports.LlmEngine.generate`; `task.deadline_s` counts from this call."""
        arrived_s = time.monotonic()
        self._check_room()
        check_sampling(request.sampling)
        tokens, constraint = await self._prepare(request)
        self._check_room()
        generation = self._generation(task, request, tokens, constraint, arrived_s)
        stream = _Stream()
        request_id = generation.sequence.request_id
        self._streams[request_id] = stream
        try:
            self._steps.submit(generation)
            while True:
                item = await stream.take()
                if isinstance(item, SkyshoreError):
                    raise item
                yield item
                if isinstance(item, WorkerOutcome):
                    break
            self._request_s += _WEIGHT * (time.monotonic() - arrived_s - self._request_s)
        finally:
            del self._streams[request_id]
            if not stream.ended:
                self._steps.cancel(request_id)

    def load(self) -> EngineLoad:
        """See `skyshore.ports.LlmEngine.load`."""
        self._forget_old(time.monotonic())
        decodes = [report.decode_rows for report in self._recent if report.decode_rows]
        running = min(self._newest.running, len(self._streams))
        return EngineLoad(
            running=running,
            queued=len(self._streams) - running,
            capacity=self._capacity,
            kv_used=self._newest.kv_used,
            decode_batch=sum(decodes) / len(decodes) if decodes else 0.0,
            tokens_per_s=sum(report.tokens for report in self._recent) / _LOAD_WINDOW_S,
        )

    async def close(self) -> None:
        """Stop after the running step; requests still open fail with `NodeUnavailable`."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._steps.stop)

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer."""
        return self._context_tokens

    # -------------------------------------------------------------------------------------------- requests

    @property
    def _capacity(self) -> int:
        return self._settings.slots + self._settings.queue_limit

    def _check_room(self) -> None:
        if self._closed:
            raise NodeUnavailable("this engine is closed; ask another node")
        if len(self._streams) >= self._capacity:
            wait_s = min(60.0, max(0.5, self._request_s / self._settings.slots))
            raise QueueFull(f"{len(self._streams)} requests are running or waiting already", retry_after_s=wait_s)

    async def _prepare(self, request: LlmInput) -> tuple[list[int], Constraint | None]:
        """Prompt tokens and constraint; both can be long work, then done off the event loop."""
        text = sum(len(message.content) for message in request.messages) + len(request.prompt)
        tokens = await asyncio.to_thread(self._encode, request) if text > _INLINE_CHARS else self._encode(request)
        chosen = request.sampling
        constrained = chosen.json_schema or chosen.regex
        constraint = await asyncio.to_thread(self._constraints.compile, chosen) if constrained else None
        total = len(tokens) + request.sampling.max_tokens
        if total > self._context_tokens:
            raise PromptTooLong(
                f"{len(tokens)} prompt tokens and max_tokens {request.sampling.max_tokens} exceed the context of "
                f"{self._context_tokens}; shorten the prompt or ask for less",
                param="max_tokens" if len(tokens) < self._context_tokens else "messages",
            )
        return tokens, constraint

    def _encode(self, request: LlmInput) -> list[int]:
        forms = [bool(request.messages), bool(request.prompt), bool(request.prompt_token_ids)]
        if sum(forms) != 1:
            raise InvalidTask("give exactly one of messages, prompt and prompt token ids, and not an empty one")
        if request.messages:
            return self.tokenizer.encode_chat(request.messages)
        if request.prompt:
            return self.tokenizer.encode(request.prompt)
        vocab = self.tokenizer.description.vocab
        if not all(0 <= token < vocab for token in request.prompt_token_ids):
            raise InvalidTask(f"prompt token ids must lie between 0 and {vocab - 1}", param="prompt")
        return list(request.prompt_token_ids)

    def _generation(
        self, task: Task, request: LlmInput, tokens: list[int], constraint: Constraint | None, arrived_s: float
    ) -> Generation:
        request_id = next(self._request_ids)
        known = self._settings.service_classes.get(task.service_class)
        sequence = Sequence(
            tokens=tokens,
            request_id=request_id,
            prompt_tokens=len(tokens),
            priority=known.priority if known else 0,
            deadline_s=arrived_s + task.deadline_s,
            arrival=request_id,
        )
        return Generation(
            sequence=sequence,
            sampler=RowSampler(
                request.sampling,
                np.unique(np.array(tokens, np.int64)),
                np.random.default_rng(_seed(task, request)),
            ),
            text=TextStream(request.sampling.stop),
            constraint=constraint,
            vocabulary=self._vocabulary,
            end_tokens=self.tokenizer.description.eos_token_ids,
            timing=Timing(arrived_s=arrived_s),
        )

    # --------------------------------------------------------------------------------------------- reports

    def _post(self, report: StepReport) -> None:
        """Called on the engine thread: one call into the event loop per step, for all requests."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._receive, report)

    def _receive(self, report: StepReport) -> None:
        for request_id, item in report.items:
            stream = self._streams.get(request_id)
            if stream is not None:
                stream.put(item)
        self._newest = report
        self._recent.append(report)
        self._forget_old(report.now_s)

    def _forget_old(self, now_s: float) -> None:
        while self._recent and self._recent[0].now_s < now_s - _LOAD_WINDOW_S:
            self._recent.popleft()


def _seed(task: Task, request: LlmInput) -> int:
    """The caller's seed, else one of the task. So another node can compute the same answer if this one is lost."""
    if request.sampling.seed is not None:
        return request.sampling.seed % (1 << 64)
    return int.from_bytes(hashlib.blake2b(task.task_id.encode(), digest_size=8).digest())


class _Stream:
    """Items of one request between two turns of its reader; bounded by the answer's own length."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._filled = asyncio.Event()
        self.ended = False

    def put(self, item: Item) -> None:
        self._items.append(item)
        self.ended = self.ended or not isinstance(item, TokenChunk)
        self._filled.set()

    async def take(self) -> Item:
        """The next item; waits until there is one."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        return self._items.popleft()


def kv_limits(settings: LlmEngineSettings, decoder: Decoder, context_tokens: int) -> KvLimits:
    """The cache limits that the settings and the model's cache shape give.

    Raises:
        EngineMisconfigured: the budget does not hold even one request of full length.
    """
    granule = decoder.kv.granule_tokens
    budget_tokens = settings.kv_budget_bytes // decoder.kv.bytes_per_token
    needed = -(-(context_tokens + 1) // granule) * granule
    if budget_tokens < needed:
        raise EngineMisconfigured(
            f"kv_budget_bytes holds {budget_tokens} tokens, but one request may need {needed}; "
            f"set it to {needed * decoder.kv.bytes_per_token} or more, or lower context_tokens"
        )
    return KvLimits(settings.slots, settings.prefix_slots, budget_tokens, granule)


def _load(settings: LlmEngineSettings) -> tuple[Tokenizer, Decoder]:
    for name in ("slots", "threads", "context_tokens", "prefill_chunk_tokens"):
        if getattr(settings, name) < 1:
            raise EngineMisconfigured(f"{name} must be at least 1, not {getattr(settings, name)}")
    if settings.queue_limit < 0 or settings.prefix_slots < 0 or not settings.stall_ratio > 0:
        raise EngineMisconfigured("queue_limit and prefix_slots must not be negative, and stall_ratio must be positive")
    tokenizer = Tokenizer.open(settings.model_dir)
    capacity_tokens = min(settings.context_tokens, tokenizer.description.context_tokens) + 1
    decoder = Decoder(
        settings.model_dir / f"model-{settings.precision}.onnx",
        settings.slots + settings.prefix_slots + 1,
        capacity_tokens,
        settings.threads,
        spin=settings.spin,
    )
    if decoder.vocab != tokenizer.description.vocab:
        raise EngineMisconfigured(
            f"{settings.model_dir}: graph and tokenizer disagree on the vocabulary; build it again"
        )
    return tokenizer, decoder
