"""Writes what the paper scenarios read: scenarios/papers/profiles/ (nodes) and scenarios/papers/data/ (links).

Nodes of the PerLLM scenarios are modelled from data sheets, with weights in 4 bits: with 16-bit weights no edge
answers 128 tokens within 6 s, and the 33B model leaves an A100 little memory for keys and values. Links that fluctuate
are drawn here, seeded: no recorded trace may be redistributed with us.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from skyshore.nodemodel.document import profile_to_document
from skyshore.nodemodel.hardware import HARDWARE, LLM_SHAPES, llm_speed
from skyshore.nodemodel.speed import NodeProfile

PAPERS = Path(__file__).parent.parent / "scenarios" / "papers"
NODES = (
    ("jetson-agx-orin", "yi-6b"),
    ("l4", "yi-6b"),
    ("l4", "llama2-7b"),
    ("l4", "llama3-8b"),
    ("l4", "yi-9b"),
    ("a100", "llama-33b"),
)
BYTES_PER_PARAMETER = 0.56
"""4-bit groups of 128 with their scales, embeddings in 16 bits (assumed)."""
QUALITY_KEPT = 0.98
"""Share of the 16-bit score that 4-bit weights keep at 6B and more (assumed, after AWQ and GPTQ)."""
SECONDS = 120
"""Length of a link's trace; it then starts over."""
SWING = 0.4
"""Rates are uniform within this share of the mean, second by second (digest, part 5)."""
LINKS = {"edge-1": 100, "edge-2": 100, "edge-3": 100, "edge-4": 100, "edge-5": 100, "cloud": 300}
"""Mean Mbit/s (the digest's unverified memory of PerLLM)."""
UPLINK_MBIT_S = (8, 25, 60)
"""Of the cameras' uplink to the cloud: bad, middling and good spells (assumed)."""
SPELL_S = 4.0
"""Mean length of a spell."""


def profile(hardware: str, model: str) -> NodeProfile:
    """One node: one device with one model."""
    device = HARDWARE[hardware]
    speed = llm_speed(device, replace(LLM_SHAPES[model], bytes_per_parameter=BYTES_PER_PARAMETER))
    speed = replace(
        speed,
        source=f"modelled:roofline({device.source}; weights in 4 bits)",
        quality=round(speed.quality * QUALITY_KEPT, 3),
    )
    return NodeProfile(f"{hardware}-{model}", f"modelled:{hardware}", device.idle_watts, (speed,))


def swinging(mean_mbit_s: float, rng: np.random.Generator) -> list[float]:
    """A rate a second, uniform around the mean."""
    return [round(float(rate), 2) for rate in mean_mbit_s * rng.uniform(1 - SWING, 1 + SWING, SECONDS)]


def in_spells(rates_mbit_s: tuple[int, ...], rng: np.random.Generator) -> list[float]:
    """A Markov chain over a few rates, one step a second; spells last `SPELL_S` on average."""
    state, rates = len(rates_mbit_s) - 1, []
    for _ in range(SECONDS):
        if rng.random() < 1 / SPELL_S:
            state = int(rng.integers(len(rates_mbit_s)))
        rates.append(float(rates_mbit_s[state]))
    return rates


def write_trace(name: str, rates_mbit_s: list[float], how: str) -> None:
    """A `seconds, Mbit/s` table."""
    rows = [f"# made by scripts/make_paper_data.py: {how}", "seconds,mbit_s"]
    rows += [f"{second},{rate}" for second, rate in enumerate(rates_mbit_s)]
    (PAPERS / "data" / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    """Write all of them."""
    for hardware, model in NODES:
        made = profile(hardware, model)
        text = json.dumps(profile_to_document(made), indent=2) + "\n"
        (PAPERS / "profiles" / f"{made.name}.json").write_text(text, encoding="utf-8")
    for number, (node, mean_mbit_s) in enumerate(LINKS.items()):
        how = f"{mean_mbit_s} Mbit/s, uniform within {SWING:.0%}, every second"
        write_trace(f"perllm-{node}", swinging(mean_mbit_s, np.random.default_rng([2024, number])), how)
    how = f"spells of {SPELL_S:g} s on average at {', '.join(map(str, UPLINK_MBIT_S))} Mbit/s"
    write_trace("cdio-uplink", in_spells(UPLINK_MBIT_S, np.random.default_rng(2025)), how)


if __name__ == "__main__":
    main()
