"""The sources of `skyshore traces make`: from text such as `poisson rate=0.5 prompt_tokens=64` to arrivals."""

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
from skyshore.workload.cameras import CameraSpec, VideoKind, camera_arrivals, objects_per_frame
from skyshore.workload.llm_traces import read_azure, read_mooncake, spread_ticks, tick_of
from skyshore.workload.mix import LlmDemand, llm_arrivals, with_demand
from skyshore.workload.scaling import cap_tokens, compress, thin, window
from skyshore.workload.schedule import Schedule, assemble

T = TypeVar("T")
_CLOSED: dict[str, str] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _LlmSource:
    """Options of every source of LLM requests."""

    __pydantic_config__: ClassVar[dict[str, str]] = _CLOSED
    max_prompt_tokens: int = 4096
    max_output_tokens: int = 1024
    service_class: str = "interactive"
    deadline_s: float = 20.0
    min_quality: float = 0.0
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _GeneratedSource(_LlmSource):
    """Times from an arrival process, lengths from a distribution."""

    rate: float = 0.5
    prompt_tokens: float = 64.0
    output_tokens: float = 32.0
    length_cv: float = 0.5

    def times(self, seconds: float, rng: np.random.Generator) -> arrivals.Times:
        """Arrival times in seconds; a Poisson process unless a subclass has another one."""
        return arrivals.poisson(self.rate, seconds, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gamma(_GeneratedSource):
    cv: float = 2.0

    def times(self, seconds: float, rng: np.random.Generator) -> arrivals.Times:
        return arrivals.gamma(self.rate, self.cv, seconds, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnOff(_GeneratedSource):
    on_s: float = 5.0
    off_s: float = 10.0

    def times(self, seconds: float, rng: np.random.Generator) -> arrivals.Times:
        return arrivals.on_off(self.rate, self.on_s, self.off_s, seconds, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Diurnal(_GeneratedSource):
    amplitude: float = 0.8
    period_s: float = 60.0

    def times(self, seconds: float, rng: np.random.Generator) -> arrivals.Times:
        return arrivals.diurnal(self.rate, self.amplitude, self.period_s, seconds, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RecordedSource(_LlmSource):
    """Times and lengths from a published trace."""

    file: Path
    start_s: float = 0.0
    speed_up: float = 1.0
    keep: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Azure(_RecordedSource):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mooncake(_RecordedSource):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _CameraSource:
    """`count` equal cameras with different phases."""

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


LLM_SOURCES: dict[str, type[_LlmSource]] = {
    "poisson": _GeneratedSource,
    "gamma": _Gamma,
    "on-off": _OnOff,
    "diurnal": _Diurnal,
    "azure": _Azure,
    "mooncake": _Mooncake,
}


@dataclass(frozen=True, slots=True)
class Stream:
    """Arrivals of one source, and how they were made."""

    arrivals: tuple[Arrival, ...]
    provenance: tuple[str, ...]


def llm_stream(words: str, seconds: float, seed: int, number: int) -> Stream:
    """The LLM requests of a source.

    Args:
        words: name and options of the source, for example `poisson rate=0.5`.
        seconds: length of the schedule.
        seed: seed of the schedule.
        number: index of the source, so that each source draws its own random numbers.

    Raises:
        InvalidTask: unknown source or option.
        NotFound, InvalidTrace: the trace file cannot be read or used.
    """
    source, _, rest = words.strip().partition(" ")
    if source not in LLM_SOURCES:
        raise InvalidTask(
            f"no source of LLM requests '{source}'; the sources are {', '.join(LLM_SOURCES)}", param="llm"
        )
    options = _read(LLM_SOURCES[source], rest, f"--llm {source}")
    if isinstance(options, _RecordedSource):
        return _recorded(options, seconds, seed)
    assert isinstance(options, _GeneratedSource)
    rng = np.random.default_rng([seed, 1, number])
    demand = _demand(options, options.prompt_tokens, options.output_tokens, options.length_cv)
    requests = _checked(lambda: llm_arrivals(options.times(seconds, rng), demand, rng), f"--llm {words}")
    return Stream(tuple(requests), (f"llm {words.strip()}",))


def camera_stream(words: str, seconds: float, seed: int, number: int) -> Stream:
    """The segments of the cameras in `words`, for example `count=2 fps=5`. Arguments and errors as for `llm_stream`."""
    options = _read(_CameraSource, words, "--cameras")
    objects = objects_per_frame(_text(options.objects)) if options.objects else ()

    def make() -> list[Arrival]:
        segments: list[Arrival] = []
        for place in range(1, options.count + 1):
            camera = CameraSpec(
                f"camera-{number}.{place}",
                options.clip,
                options.fps,
                options.segment_s,
                options.deadline_s,
                origin=options.origin,
                service_class=options.service_class,
                kind=options.kind,
                min_quality=options.min_quality,
                objects=objects,
            )
            segments += camera_arrivals(camera, seconds, np.random.default_rng([seed, 2, number, place]))
        return segments

    return Stream(tuple(_checked(make, f"--cameras {words}")), (f"cameras {words.strip()}",))


def _recorded(options: _RecordedSource, seconds: float, seed: int) -> Stream:
    lines = _text(options.file)
    rows = read_azure(lines) if isinstance(options, _Azure) else read_mooncake(lines)
    provenance = [f"llm {'azure' if isinstance(options, _Azure) else 'mooncake'} {options.file.name}"]
    if tick_s := tick_of(rows):
        rows = spread_ticks(rows, tick_s, np.random.default_rng([seed, 3]))
        provenance.append(f"spread uniformly within its ticks of {tick_s:g} s, seed={seed}")
    rows = with_demand(rows, _demand(options, 1, 1, 0))

    def scale() -> Schedule:
        end_s = rows[-1].t_intended_s + 1e-6
        cut = window(
            assemble([rows], duration_s=end_s, seed=seed, provenance=provenance),
            options.start_s,
            seconds * options.speed_up,
        )
        played = compress(cut, options.speed_up) if options.speed_up != 1 else cut
        kept = thin(played, options.keep, seed) if options.keep != 1 else played
        return cap_tokens(kept, options.max_prompt_tokens, options.max_output_tokens)

    scaled = _checked(scale, f"--llm of {options.file}")
    return Stream(scaled.arrivals, scaled.provenance)


def _demand(options: _LlmSource, prompt_tokens: float, output_tokens: float, length_cv: float) -> LlmDemand:
    given = {field.name: getattr(options, field.name) for field in fields(_LlmSource)}
    return LlmDemand(prompt_tokens, output_tokens, length_cv, **given)


def _read(shape: type[T], words: str, where: str) -> T:
    pairs = dict(word.partition("=")[::2] for word in words.split())
    try:
        return TypeAdapter(shape).validate_python(pairs)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        known = ", ".join(field.name for field in fields(shape))  # type: ignore[arg-type]
        key = ".".join(map(str, detail["loc"]))
        raise InvalidTask(f"{where}: {key}: {detail['msg']}; known options are {known}", param=key) from error


def _checked(make: Callable[[], T], where: str) -> T:
    try:
        return make()
    except ValueError as error:
        raise InvalidTask(f"{where}: {error}") from error


def _text(path: Path) -> list[str]:
    return read_text(path).splitlines(keepends=True)
