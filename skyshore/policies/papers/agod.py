"""AGOD: a diffusion actor trained by discrete soft actor–critic chooses the server, five denoising steps a decision.

Ports: Du et al., "Diffusion-based reinforcement learning for edge-enabled AI-generated content services" (D2SAC,
arXiv 2303.13052, IEEE TMC 2024; code `Lizonghang/AGOD`; digest 3.4). The action's logits start as noise and are
denoised in five steps of a variance-preserving schedule, conditioned on the state; softmax over them is the policy. A
service provider there is an arm here; the reward is our common one (digest 1.4) instead of image quality and crashes.

Our choices: the paper's network has one input per provider and so serves one fleet; here one small network is applied
to every arm, with the mean over all arms beside it, so that any fleet can be served and the order of arms does not
matter; logits are the denoised values times eight, for in ±1 a softmax over many arms stays nearly uniform. Deciding
starts from zero noise and adds none, and takes the likeliest arm: a function of the context, with propensity 1. The
pass is numpy, for a pure package may hold no engine; a test holds it to ONNX Runtime's on the exported file.
`training/agod.py` trains it on the simulator, and its card lies beside the weights. Nothing is learned in service.
"""

from __future__ import annotations

import io
from importlib.resources import files

import numpy as np

from skyshore.policies.learning.arm_features import WIDTH, arm_features
from skyshore.policies.protocol import Arms, Context, Decision, Floats, Policy

STEPS = 5
LEAST_BETA, MOST_BETA = 0.1, 10.0
SHARPNESS = 8.0
STATE_WIDTH = WIDTH + 3
WEIGHTS = "weights/agod.npz"


def agod_state(arms: Arms, context: Context) -> Floats:
    """What the actor sees of every arm: [arms, STATE_WIDTH]."""
    more = (arms.is_cloud.astype(np.float64), arms.quality, arms.load / arms.capacity)
    return np.concatenate([arm_features(arms, context), np.stack(more, axis=1)], axis=1)


def schedule() -> tuple[Floats, Floats, Floats, Floats]:
    """Per step, first to last: √(1/ᾱ), √(1/ᾱ − 1), and the posterior mean's weights of x₀ and x_t."""
    t = np.arange(1, STEPS + 1)
    alpha = np.exp(-LEAST_BETA / STEPS - 0.5 * (MOST_BETA - LEAST_BETA) * (2 * t - 1) / STEPS**2)
    kept = np.cumprod(alpha)
    before = np.append(1.0, kept[:-1])
    of_start = (1.0 - alpha) * np.sqrt(before) / (1.0 - kept)
    of_now = (1.0 - before) * np.sqrt(alpha) / (1.0 - kept)
    return np.sqrt(1.0 / kept), np.sqrt(1.0 / kept - 1.0), of_start, of_now


class DiffusionActor:
    """The denoising chain in numpy; the ONNX file beside the weights holds the same one, and a test compares them."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        """Raises KeyError when a weight is missing."""
        self._state = weights["state.weight"], weights["state.bias"]
        self._noise, self._time = weights["noise.weight"][:, 0], weights["time.weight"]
        self._mix = weights["mix.weight"], weights["mix.bias"]
        self._out = weights["out.weight"], weights["out.bias"]
        self._schedule = schedule()

    @classmethod
    def from_bytes(cls, data: bytes) -> DiffusionActor:
        """Read what `training/agod.py` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return cls({name: stored[name].astype(np.float64) for name in stored.files})

    @classmethod
    def shipped(cls) -> DiffusionActor:
        """The weights that come with Skyshore, read once; no decision reads anything."""
        return cls.from_bytes(files("skyshore.policies").joinpath(WEIGHTS).read_bytes())

    def logits(self, state: Floats) -> Floats:
        """Logits [arms] for a state [arms, STATE_WIDTH], from zero noise."""
        seen = state @ self._state[0].T + self._state[1]
        value = np.zeros(len(state))
        whole, rest, of_start, of_now = self._schedule
        for step in reversed(range(STEPS)):
            noise = self._denoise(seen, value, step)
            start = np.clip(whole[step] * value - rest[step] * noise, -1.0, 1.0)
            value = of_start[step] * start + of_now[step] * value
        return SHARPNESS * value

    def _denoise(self, seen: Floats, value: Floats, step: int) -> Floats:
        first = _mish(seen + np.outer(value, self._noise) + self._time[step])
        both = np.concatenate([first, np.broadcast_to(first.mean(axis=0), first.shape)], axis=1)
        second = _mish(both @ self._mix[0].T + self._mix[1])
        noise: Floats = (second @ self._out[0].T + self._out[1])[:, 0]
        return noise


class Agod(Policy):
    """The trained actor."""

    def __init__(self, rng: np.random.Generator, *, actor: DiffusionActor | None = None) -> None:
        """The generator is not needed; no `actor` means the shipped one."""
        self._actor = actor or DiffusionActor.shipped()

    def select(self, context: Context, arms: Arms) -> Decision:
        """Likeliest arm of the actor's policy."""
        logits = self._actor.logits(agod_state(arms, context))
        return Decision(int(logits.argmax()), scores=logits)


def _mish(values: Floats) -> Floats:
    return np.asarray(values * np.tanh(np.logaddexp(0.0, values)), np.float64)
