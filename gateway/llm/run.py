"""One prompt on one node: what the attempt loop needs to know of a language-model task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol, Self, cast

from gateway.attempt_log import AttemptLog
from gateway.endings import RETRIED, blames_node
from gateway.llm.continuation import Continuation, Diverged, Sent
from skyshore.domain.errors import Internal, NodeDied, NoFeasibleArm, NotFound, PromptTooLong, SkyshoreError
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


NextAnswer = Callable[[SkyshoreError], Awaitable["LlmAnswer"]]


class LlmAnswer:
    """An answer whose first event has arrived. Iterate over its tokens; after that `worker` has the node's figures.

    If its node fails, the answer goes on on another node with the same model, without a repeat and without a gap.
    """

    def __init__(
        self,
        placement: Placement,
        log: AttemptLog,
        first: TokenChunk | WorkerOutcome,
        events: WorkerEvents,
        next_answer: NextAnswer,
    ) -> None:
        self.placement = placement
        self.overhead_s = log.overhead_s
        self._log, self._events, self._next_answer = log, events, next_answer
        self._first: TokenChunk | WorkerOutcome | None = first
        self._sent = Sent()
        self._continuation: Continuation | None = None

    @property
    def worker(self) -> WorkerOutcome:
        """What the node measured; of several, the last one."""
        return self._log.worker

    def costs(self) -> dict[str, float | str]:
        """What the answer cost; see `AttemptLog.costs`."""
        return self._log.costs()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """The next tokens. Raises what the node raises, if no other node can go on."""
        while True:
            try:
                event = await self._next_event()
            except RETRIED as error:
                if not blames_node(error):
                    raise
                await self._go_on_elsewhere(error)
                continue
            if isinstance(event, WorkerOutcome):
                self._log.worker = event
                self._log.down_bytes += REPLY_BYTES
                raise StopAsyncIteration
            self._log.down_bytes += TOKEN_BYTES + len(event.text.encode())
            if new := self._new_part(event):
                self._sent.add(new)
                return new

    async def _next_event(self) -> TokenChunk | WorkerOutcome:
        event, self._first = self._first, None
        return event if event is not None else await _next(self._events, self.placement)

    async def _go_on_elsewhere(self, error: SkyshoreError) -> None:
        answer = await self._next_answer(error)
        self._events, self._first = answer._events, answer._first
        self._continuation = Continuation(self._sent)

    def _new_part(self, chunk: TokenChunk) -> TokenChunk | None:
        if self._continuation is None:
            return chunk
        try:
            return self._continuation.take(chunk)
        except Diverged:
            raise NodeDied(
                f"node '{self.placement.arm.node_id}' was lost in the middle of the answer, and another node answers "
                "differently; ask again, with a seed or temperature 0",
                retry_after_s=1.0,
            ) from None


class LlmRun:
    """Runs one prompt; the result is its `LlmAnswer`. See `TaskRun`."""

    subject = "the answer"

    def __init__(self, prompt: LlmPrompt, profiler: ProfilerClient) -> None:
        self.task, self.arrived_s = prompt.task, prompt.arrived_s
        self._prompt, self._profiler = prompt, profiler
        self._profile = TaskProfile()
        self._fitted = prompt.request
        self._events: WorkerEvents | None = None
        self._model = ""
        """Of the node that began the answer."""
        self._next_answer: NextAnswer | None = None

    async def profile(self) -> TaskProfile:
        """Count the tokens of the prompt and predict the length of the answer."""
        self._profile = await self._profiler.profile_llm(self.task, self._prompt.request)
        return self._profile

    def placement_error(self, error: NoFeasibleArm) -> SkyshoreError:
        """Two of the reasons why no arm is feasible have codes that clients of OpenAI know."""
        if self._model:
            return NodeDied(f"the node was lost in the middle of the answer, and no other one runs '{self._model}'")
        if error.param == "model":
            return NotFound(error.message, param="model")
        if error.param == "prompt":
            return PromptTooLong(error.message, param="messages")
        return error

    async def prepare(self, placement: Placement, log: AttemptLog) -> None:
        """Limit the answer to the context of the placed model; one that has begun keeps its limit.

        Raises:
            PromptTooLong: the prompt or the answer does not fit.
            NodeDied: the answer has begun, and this arm cannot go on with it.
        """
        log.up_bytes = REQUEST_BYTES + self._profile.input_bytes
        if not self._model:
            self._fitted = _fit(self._prompt, placement, self._profile.prompt_tokens)
        elif placement.arm.model != self._model:
            raise NodeDied(f"the node was lost in the middle of the answer, and no other one runs '{self._model}'")

    async def execute(self, node: WorkerClient, task: Task, placement: Placement, log: AttemptLog) -> LlmAnswer:
        """Start the prompt on a node and wait for its first event."""
        await self.aclose()
        self._events = cast(WorkerEvents, node.execute(task, placement.arm.arm_id, self._fitted))
        first = await _next(self._events, placement)
        if not self._model:
            log.first_token()
            self._model = placement.arm.model
            self.task = replace(self.task, model=self._model)  # only the same model can go on
        assert self._next_answer
        return LlmAnswer(placement, log, first, self._events, self._next_answer)

    def set_next(self, next_result: NextAnswer) -> None:
        """See `TaskRun`."""
        self._next_answer = next_result

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
