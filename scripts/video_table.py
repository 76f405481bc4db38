"""Regenerate the table of arms in docs/video.md from docs/benchmarks/profile-video.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "docs" / "benchmarks" / "profile-video.json"
PAGE = ROOT / "docs" / "video.md"
BEGIN = "<!-- arms: from docs/benchmarks/profile-video.json by `make docs`, never edited by hand -->"
END = "<!-- end of arms -->"


def table(result: dict[str, Any]) -> str:
    """The frontier as Markdown, and beneath it the spread over all arms that were tried."""
    arms, fps = result["arms"], result["fps"]
    rates = [_rate(arm, fps) for arm in arms]
    qualities = [arm["quality"] for arm in arms]
    shown = sorted((arm for arm in arms if arm["frontier"]), key=lambda arm: (arm["model"], -_rate(arm, fps)))
    lines = [
        "| model | sent at | encoding | every | ms p50 | p95 | CPU ms | kB/s | F1 | mAP50 | J |",
        "| --- | --: | --- | --: | --: | --: | --: | --: | --: | --: | --: |",
        *(_row(arm, fps) for arm in shown),
        "",
        f"{len(shown)} of {len(arms)} arms on `{result['clip']}` are on the frontier of F1, bytes and time.",
        f"Over all arms bytes per second lie **{max(rates) / min(rates):.0f}×** apart and F1 goes from",
        f"**{min(qualities):.2f}** to **{max(qualities):.2f}**.",
        f"{arms[0]['source']}; quality: {arms[0]['quality_source']}; joules above idle: {arms[0]['energy_source']}.",
    ]
    return "\n".join(lines)


def _row(arm: dict[str, Any], fps: float) -> str:
    cells = (
        arm["model"],
        str(arm["input_size"] or "source"),
        f"{arm['codec']} {arm['encode_quality']}",
        str(arm["frame_stride"]),
        *(f"{arm[name] * 1e3:.1f}" for name in ("frame_s", "frame_p95_s", "cpu_s")),
        f"{_rate(arm, fps) / 1e3:.1f}",
        f"{arm['quality']:.3f}",
        f"{arm['map50']:.3f}",
        f"{arm['joules_per_frame']:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _rate(arm: dict[str, Any], fps: float) -> float:
    """Bytes per second of video."""
    return float(arm["bytes_per_frame"] * fps / arm["frame_stride"])


def update() -> None:
    """Put the table between its marks; without a result the page says how to make one."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    made = (
        table(json.loads(RESULT.read_text()))
        if RESULT.exists()
        else "No result is kept yet; the command above makes it."
    )
    PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")


if __name__ == "__main__":
    update()
