"""Computes task profiles: prompt tokens, expected output tokens, complexity of a key frame."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from services.profiler.tokens import PromptTokenizer, count_tokens, prompt_bytes
from skyshore.domain.errors import InvalidMedia, InvalidTask
from skyshore.domain.llm import LlmInput
from skyshore.domain.outcome import Outcome, OutcomeStatus
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task
from skyshore.profiling.complexity import complexity_vector
from skyshore.profiling.output_length import Features, OutputLengths, prompt_features
from skyshore.profiling.preference import PreferencePredictor
from skyshore.runtime import telemetry

INLINE_BYTES = 4096
"""Prompts up to this size are tokenised on the event loop: a thread switch would take longer."""
REMEMBERED = 20_000
"""Limit of tasks that wait for their outcome. The oldest are forgotten."""
MAX_LUMA_PIXELS = 4096 * 2304


class TaskProfiler:
    """Profiles tasks. Long computations run on `executor`."""

    def __init__(self, tokenizer: PromptTokenizer, executor: Executor, preferences: PreferencePredictor) -> None:
        self._tokenizer, self._executor, self._preferences = tokenizer, executor, preferences
        self._lengths = OutputLengths()
        self._limits: OrderedDict[str, tuple[str, int, Features]] = OrderedDict()
        """Task id → service class, max_tokens and features of the prompt."""

    async def profile_llm(self, task: Task, request: LlmInput) -> TaskProfile:
        """Count the prompt tokens and predict the expected output tokens.

        Raises:
            InvalidTask: max_tokens is not positive.
        """
        sampling, size = request.sampling, prompt_bytes(request)
        if sampling.max_tokens < 1:
            raise InvalidTask("max_tokens must be at least 1", param="max_tokens")
        if size <= INLINE_BYTES:
            tokens = count_tokens(self._tokenizer, request)
        else:
            loop = asyncio.get_running_loop()
            tokens = await loop.run_in_executor(self._executor, count_tokens, self._tokenizer, request)
        last_turn = request.messages[-1].content if request.messages else request.prompt
        features = prompt_features(tokens, len(request.messages), last_turn)
        limit, forced = sampling.max_tokens, sampling.ignore_eos
        expected = self._lengths.expect(task.service_class, limit, features, to_the_limit=forced)
        if not forced:
            self._remember(task, limit, features)
        return TaskProfile(prompt_tokens=tokens, expected_output_tokens=expected, input_bytes=size)

    async def profile_video(self, task: Task, facts: TaskProfile, width: int, height: int, luma: bytes) -> TaskProfile:
        """`facts` with the complexity of a key frame and the predicted preference for compute.

        Raises:
            InvalidMedia: the plane is empty, larger than 4096 × 2304, or not `width` × `height` bytes.
        """
        if width < 1 or height < 1 or width * height > MAX_LUMA_PIXELS:
            raise InvalidMedia(
                f"a grey plane of {width} × {height} is not allowed; send 1..{MAX_LUMA_PIXELS} pixels",
                param="luma",
            )
        if len(luma) != width * height:
            raise InvalidMedia(f"{len(luma)} bytes are not a grey plane of {width} × {height}", param="luma")
        plane = np.frombuffer(luma, dtype=np.uint8).reshape(height, width)
        loop = asyncio.get_running_loop()
        complexity = await loop.run_in_executor(self._executor, complexity_vector, plane)
        preference = self._preferences.predict(task, facts.frame_count, complexity)
        return replace(facts, complexity=complexity, compute_preference=preference)

    def learn(self, outcome: Outcome) -> None:
        """Learn from the length of an answer. Outcomes of tasks that were not profiled here are ignored."""
        known = self._limits.pop(outcome.task_id, None)
        if known is None or outcome.status is not OutcomeStatus.OK:
            return
        service_class, limit, features = known
        model = self._lengths.observe(service_class, outcome.worker.output_tokens, limit, features)
        for seen in model.coverage:
            telemetry.LENGTH_COVERAGE.labels(service_class, f"{seen.level:g}").set(seen.share)

    def _remember(self, task: Task, limit: int, features: Features) -> None:
        self._limits[task.task_id] = (task.service_class, limit, features)
        if len(self._limits) > REMEMBERED:
            self._limits.popitem(last=False)
