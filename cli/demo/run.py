"""`skyshore demo`: starts a system, sends real requests, replays a trace and prints the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from cli.connection import GatewayApi, state_folder
from cli.demo.requests import chat, detect, save_detected
from cli.launcher.control import log_folder, stop_system
from cli.launcher.errors import NotRunning
from cli.launcher.state_file import StateFile
from cli.models import is_ready
from cli.render import say
from cli.replay import play_schedule, show_result
from cli.traces.commands import write_schedule
from cli.traces.sources import Stream, camera_stream, llm_stream
from cli.up import MODELS, UpOptions, fetch_missing, up_detached
from skyshore.adapters.video_source import probe
from skyshore.catalogue.store import clip
from skyshore.domain.errors import SkyshoreError
from skyshore.workload.schedule import assemble

CLIPS = ("vtest", "bikes")
"""In order of preference. The first has more pedestrians but is fetched by apt, which the demo must not need."""
READY_S = 240.0
SEED = 1
LLM_WORDS = (
    "poisson rate=0.4 prompt_tokens=48 output_tokens=24 max_prompt_tokens=256 max_output_tokens=48 deadline_s=20"
)
CAMERA_WORDS = "count=1 fps=5 segment_s=2 deadline_s=10"


def run_demo(*, emulated: bool, seconds: float, out: Path) -> bool:
    """Run the demo; False if a step failed. A system that it started is always stopped at the end.

    Raises:
        LaunchFailed: the system did not start.
    """
    console = Console()
    clip_name = _fetch(emulated, console)
    with _system(emulated, console) as url:
        steps = _Steps(url, clip_name, seconds, out, console)
        succeeded = steps.run()
    console.rule("files")
    for path in steps.written:
        say(console, str(path))
    say(console, f"logs: {log_folder(state_folder())}")
    return succeeded


@dataclass(slots=True)
class _Steps:
    """The steps of the demo, on a system that runs."""

    url: str
    clip_name: str
    """Empty without a clip."""
    seconds: float
    out: Path
    console: Console
    written: list[Path] = field(default_factory=list)

    def run(self) -> bool:
        """Every step that the nodes can serve; a step that fails does not stop the next. True if none failed."""
        served = {str(model["kind"]) for model in GatewayApi(self.url).get("/v1/models")["data"]}
        streams: list[Stream] = []
        succeeded = True
        if "llm" in served:
            succeeded = self._try("one chat", self._chat)
            streams.append(llm_stream(LLM_WORDS, self.seconds, SEED, 1))
        else:
            self._warn("no chat: no node serves a language model; run `skyshore models fetch smollm2-135m`")
        if "video.detect" in served and self.clip_name:
            succeeded = self._try("one clip", self._detect) and succeeded
            streams.append(camera_stream(f"{CAMERA_WORDS} clip={self.clip_name}", self.seconds, SEED, 1))
        else:
            self._warn("no video: no detector or no clip is available; run `skyshore models fetch`")
        return self._try("a mixed trace", lambda: self._replay(streams)) and succeeded

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
        chat(GatewayApi(self.url), self.console)

    def _detect(self) -> None:
        path = clip(self.clip_name)
        count = probe(path).frame_count
        detected = detect(GatewayApi(self.url), path, count, self.console)
        self.written += save_detected(detected, self.out)

    def _replay(self, streams: list[Stream]) -> None:
        if not streams:
            raise SkyshoreError("no node serves a model; `skyshore demo --emulated` needs no models")
        provenance = [line for stream in streams for line in stream.provenance]
        arrivals = [stream.arrivals for stream in streams]
        schedule = assemble(arrivals, duration_s=self.seconds, seed=SEED, provenance=provenance)
        trace, report = self.out / "trace.jsonl", self.out / "replay.json"
        write_schedule(schedule, trace)
        say(self.console, f"{len(schedule.arrivals)} requests: {'; '.join(provenance)}")
        policy = str(GatewayApi(self.url).get("/v1/policy")["policy"])
        result = play_schedule(schedule, self.url, policy, self.console)
        show_result(result, report, self.console, as_json=False)
        self.written += [trace, report, report.with_suffix(".requests.jsonl")]
        if not result.whole.figures["answered"]:
            raise SkyshoreError("no request of the trace succeeded; see the logs")


def _fetch(emulated: bool, console: Console) -> str:
    """Fetch models and a clip; returns the name of the clip, empty if there is none."""
    console.rule("models and a clip")
    cached = next((name for name in CLIPS if is_ready(name)), "")
    failed = fetch_missing((*(() if emulated else MODELS), *(() if cached else (CLIPS[-1],))), console)
    if any("npm" in reason for reason in failed):
        say(
            console,
            ("no detector: the video is skipped; install npm (Node.js) and try again", "yellow"),
        )
    if not failed:
        say(
            console,
            "everything is in the cache" + ("; the nodes are EMULATED: their answers are not real" if emulated else ""),
        )
    return cached or next((name for name in CLIPS if is_ready(name)), "")


@contextmanager
def _system(emulated: bool, console: Console) -> Iterator[str]:
    """The address of a gateway: of the system that already runs here, or of a new one that is stopped at the end."""
    console.rule("processes")
    folder = state_folder()
    try:
        running = StateFile(folder).running()
        say(console, f"using the system that already runs: {running.gateway_url}")
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
        with console.status("stopping the system"):
            stop_system(folder, console)
