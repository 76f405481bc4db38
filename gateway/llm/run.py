"""One prompt on one node: what the attempt loop needs to know of a language-model task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self, cast

from gateway.attempt_log import AttemptLog
from skyshore.domain.errors import Internal, NoFeasibleArm, NotFound, PromptTooLong, SkyshoreError
from skyshore.domain.llm import LlmInput, TokenChunk
from skyshore.domain.outcome import WorkerOutcome
from skyshore.domain.placement import Placement
from skyshore.domain.profile import TaskProfile
from skyshore.domain.task import Task
from skyshore.links.framing import REPLY_BYTES, REQUEST_BYTES, TOKEN_BYTES
from skyshore.ports import ProfilerClient, WorkerClient


class WorkerEvents(Protocol):
    """The events that a node sends for one prompt. Close it when it is left early."""

    async def __anext__(self) -> TokenChunk | WorkerOutcome:
        """The next event."""
        ...

    async def aclose(self) -> None:
        """Cancel the task on the node."""
        ...


@dataclass(frozen=True, slots=True)
class LlmPrompt:
    """A task with its payload, as it arrived."""

    task: Task
    request: LlmInput
    arrived_s: float
    """On `time.monotonic`."""
    fit_to_context: bool
    """True if the caller set no limit of output tokens: then the limit shrinks to what the model's context leaves."""


class LlmAnswer:
    """An answer whose first event has arrived. Iterate over its tokens; after that `worker` has the node's figures."""

    def __init__(
        self, placement: Placement, log: AttemptLog, first: TokenChunk | WorkerOutcome, events: WorkerEvents
    ) -> None:
        self.placement = placement
        self.overhead_s = log.overhead_s
        self._log, self._events = log, events
        self._first: TokenChunk | WorkerOutcome | None = first

    @property
    def worker(self) -> WorkerOutcome:
        """What the node measured."""
        return self._log.worker

    def costs(self) -> dict[str, float | str]:
        """What the answer cost; see `AttemptLog.costs`."""
        return self._log.costs()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """The next tokens. Raises what the node raises: after the first token no other node is tried."""
        event, self._first = self._first, None
        if event is None:
            event = await _next(self._events, self.placement)
        if isinstance(event, TokenChunk):
            self._log.down_bytes += TOKEN_BYTES + len(event.text.encode())
            return event
        self._log.worker = event
        self._log.down_bytes += REPLY_BYTES
        raise StopAsyncIteration


class LlmRun:
    """Runs one prompt; the result is its `LlmAnswer`. See `TaskRun`."""

    subject = "the answer"

    def __init__(self, prompt: LlmPrompt, profiler: ProfilerClient) -> None:
        self.task, self.arrived_s = prompt.task, prompt.arrived_s
        self._prompt, self._profiler = prompt, profiler
        self._profile = TaskProfile()
        self._fitted = prompt.request
        self._events: WorkerEvents | None = None

    async def profile(self) -> TaskProfile:
        """Count the tokens of the prompt and predict the length of the answer."""
        self._profile = await self._profiler.profile_llm(self.task, self._prompt.request)
        return self._profile

    def placement_error(self, error: NoFeasibleArm) -> SkyshoreError:
        """Two of the reasons why no arm is feasible have codes that clients of OpenAI know."""
        if error.param == "model":
            return NotFound(error.message, param="model")
        if error.param == "prompt":
            return PromptTooLong(error.message, param="messages")
        return error

    async def prepare(self, placement: Placement, log: AttemptLog) -> None:
        """Limit the answer to the context of the placed model. Raises PromptTooLong."""
        log.up_bytes = REQUEST_BYTES + self._profile.input_bytes
        self._fitted = _fit(self._prompt, placement, self._profile.prompt_tokens)

    async def execute(self, node: WorkerClient, task: Task, placement: Placement, log: AttemptLog) -> LlmAnswer:
        """Start the prompt on a node and wait for its first event."""
        self._events = cast(WorkerEvents, node.execute(task, placement.arm.arm_id, self._fitted))
        first = await _next(self._events, placement)
        log.first_token()
        return LlmAnswer(placement, log, first, self._events)

    async def aclose(self) -> None:
        """Cancel the prompt on the node, if it still runs."""
        if self._events:
            await self._events.aclose()


async def _next(events: WorkerEvents, placement: Placement) -> TokenChunk | WorkerOutcome:
    try:
        return await events.__anext__()
    except StopAsyncIteration:
        raise Internal(f"node '{placement.arm.node_id}' ended the answer without an outcome") from None


def _fit(prompt: LlmPrompt, placement: Placement, prompt_tokens: int) -> LlmInput:
    request, context_tokens = prompt.request, placement.arm.context_tokens
    left_tokens = context_tokens - prompt_tokens
    if not context_tokens or request.sampling.max_tokens <= left_tokens:
        return request
    if left_tokens < 1 or not prompt.fit_to_context:
        raise PromptTooLong(
            f"the prompt ({prompt_tokens} tokens) and max_tokens ({request.sampling.max_tokens}) exceed the context of "
            f"'{placement.arm.model}' ({context_tokens}); shorten the prompt or set a smaller max_tokens",
            param="max_tokens",
        )
    return replace(request, sampling=replace(request.sampling, max_tokens=left_tokens))
