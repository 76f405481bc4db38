"""What `traces make` is told in words, `poisson rate=0.5 prompt_tokens=64`, and the arrivals that come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from skyshore.domain.errors import InvalidTask
from skyshore.domain.task import TaskKind
from skyshore.text_file import read_text
from skyshore.workload import arrival_processes as arrivals
from skyshore.workload.arrival import Arrival
from skyshore.workload.cameras import Camera, VideoKind, camera_arrivals, objects_per_frame
from skyshore.workload.llm_traces import read_azure, read_mooncake, spread_ticks, tick_of
from skyshore.workload.mix import LlmDemand, llm_arrivals, with_demand
from skyshore.workload.scaling import cap_tokens, compress, thin, window
from skyshore.workload.schedule import Schedule, assemble

T = TypeVar("T")
_CLOSED: dict[str, str] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Llm:
    """Wishes every source of LLM requests knows."""

    __pydantic_config__: ClassVar[dict[str, str]] = _CLOSED
    max_prompt_tokens: int = 4096
    max_output_tokens: int = 1024
    service_class: str = "interactive"
    deadline_s: float = 20.0
    min_quality: float = 0.0
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Generated(_Llm):
    """Times from a process, lengths from a distribution."""

    rate: float = 0.5
    prompt_tokens: float = 64.0
    output_tokens: float = 32.0
    length_cv: float = 0.5

    def times(self, seconds: float, rng: np.random.Generator) -> arrivals.Times:
        """Poisson unless a kind of it says otherwise."""
        return arrivals.poisson(self.rate, seconds, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gamma(_Generated):
    cv: float = 2.0

    def times(self, seconds: float, rng: np.random.Generator) -> arrivals.Times:
        return arrivals.gamma(self.rate, self.cv, seconds, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnOff(_Generated):
    on_s: float = 5.0
    off_s: float = 10.0

    def times(self, seconds: float, rng: np.random.Generator) -> arrivals.Times:
        return arrivals.on_off(self.rate, self.on_s, self.off_s, seconds, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Diurnal(_Generated):
    amplitude: float = 0.8
    period_s: float = 60.0

    def times(self, seconds: float, rng: np.random.Generator) -> arrivals.Times:
        return arrivals.diurnal(self.rate, self.amplitude, self.period_s, seconds, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded(_Llm):
    """Times and lengths from a published trace."""

    file: Path
    start_s: float = 0.0
    speed_up: float = 1.0
    keep: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Azure(_Recorded):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mooncake(_Recorded):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cameras:
    """So many cameras alike, each with a phase of its own."""

    __pydantic_config__: ClassVar[dict[str, str]] = _CLOSED
    count: int = 1
    kind: VideoKind = TaskKind.VIDEO_DETECT
    clip: str = "bikes"
    fps: float = 5.0
    segment_s: float = 2.0
    objects: Path | None = None
    service_class: str = "standard"
    deadline_s: float = 10.0
    min_quality: float = 0.0
    origin: str = ""


LLM_SOURCES: dict[str, type[_Llm]] = {
    "poisson": _Generated,
    "gamma": _Gamma,
    "on-off": _OnOff,
    "diurnal": _Diurnal,
    "azure": _Azure,
    "mooncake": _Mooncake,
}


@dataclass(frozen=True, slots=True)
class Stream:
    """Arrivals of one source and the story of how they were made."""

    arrivals: tuple[Arrival, ...]
    provenance: tuple[str, ...]


def llm_stream(words: str, seconds: float, seed: int, number: int) -> Stream:
    """The LLM requests that `words` ask for; `number` gives each source draws of its own.

    Raises:
        InvalidTask: words that ask for nothing we know.
        NotFound, InvalidTrace: the trace file.
    """
    source, _, rest = words.strip().partition(" ")
    if source not in LLM_SOURCES:
        raise InvalidTask(f"no source of LLM requests '{source}'; known are {', '.join(LLM_SOURCES)}", param="llm")
    wish = _read(LLM_SOURCES[source], rest, f"--llm {source}")
    if isinstance(wish, _Recorded):
        return _recorded(wish, seconds, seed)
    assert isinstance(wish, _Generated)
    rng = np.random.default_rng([seed, 1, number])
    demand = _demand(wish, wish.prompt_tokens, wish.output_tokens, wish.length_cv)
    made = _checked(lambda: llm_arrivals(wish.times(seconds, rng), demand, rng), f"--llm {words}")
    return Stream(tuple(made), (f"llm {words.strip()}",))


def camera_stream(words: str, seconds: float, seed: int, number: int) -> Stream:
    """The segments that `words` (`count=2 fps=5 clip=bikes`) ask for; raises as `llm_stream` does."""
    wish = _read(_Cameras, words, "--cameras")
    objects = objects_per_frame(_text(wish.objects)) if wish.objects else ()

    def make() -> list[Arrival]:
        made: list[Arrival] = []
        for place in range(1, wish.count + 1):
            camera = Camera(
                f"camera-{number}.{place}",
                wish.clip,
                wish.fps,
                wish.segment_s,
                wish.deadline_s,
                origin=wish.origin,
                service_class=wish.service_class,
                kind=wish.kind,
                min_quality=wish.min_quality,
                objects=objects,
            )
            made += camera_arrivals(camera, seconds, np.random.default_rng([seed, 2, number, place]))
        return made

    return Stream(tuple(_checked(make, f"--cameras {words}")), (f"cameras {words.strip()}",))


def _recorded(wish: _Recorded, seconds: float, seed: int) -> Stream:
    lines = _text(wish.file)
    rows = read_azure(lines) if isinstance(wish, _Azure) else read_mooncake(lines)
    story = [f"llm {'azure' if isinstance(wish, _Azure) else 'mooncake'} {wish.file.name}"]
    if tick_s := tick_of(rows):
        rows = spread_ticks(rows, tick_s, np.random.default_rng([seed, 3]))
        story.append(f"spread uniformly within its ticks of {tick_s:g} s, seed={seed}")
    rows = with_demand(rows, _demand(wish, 1, 1, 0))

    def scale() -> Schedule:
        end_s = rows[-1].t_intended_s + 1e-6
        cut = window(
            assemble([rows], duration_s=end_s, seed=seed, provenance=story), wish.start_s, seconds * wish.speed_up
        )
        played = compress(cut, wish.speed_up) if wish.speed_up != 1 else cut
        kept = thin(played, wish.keep, seed) if wish.keep != 1 else played
        return cap_tokens(kept, wish.max_prompt_tokens, wish.max_output_tokens)

    scaled = _checked(scale, f"--llm of {wish.file}")
    return Stream(scaled.arrivals, scaled.provenance)


def _demand(wish: _Llm, prompt_tokens: float, output_tokens: float, length_cv: float) -> LlmDemand:
    own = {field.name: getattr(wish, field.name) for field in fields(_Llm)}
    return LlmDemand(prompt_tokens, output_tokens, length_cv, **own)


def _read(shape: type[T], words: str, where: str) -> T:
    pairs = dict(word.partition("=")[::2] for word in words.split())
    try:
        return TypeAdapter(shape).validate_python(pairs)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        known = ", ".join(field.name for field in fields(shape))  # type: ignore[arg-type]
        key = ".".join(map(str, detail["loc"]))
        raise InvalidTask(f"{where}: {key}: {detail['msg']}; known words are {known}", param=key) from error


def _checked(make: Callable[[], T], where: str) -> T:
    try:
        return make()
    except ValueError as error:
        raise InvalidTask(f"{where}: {error}") from error


def _text(path: Path) -> list[str]:
    return read_text(path).splitlines(keepends=True)
