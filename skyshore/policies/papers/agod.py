"""AGOD: a diffusion actor, trained by discrete soft actor–critic, chooses the server in five denoising steps.

Ports: Du et al., "Diffusion-based reinforcement learning for edge-enabled AI-generated content services" (D2SAC,
arXiv 2303.13052, IEEE TMC 2024; code `Lizonghang/AGOD`; digest 3.4). The action's logits start as noise and are
denoised in five steps of a variance-preserving schedule, conditioned on the state; softmax over them is the policy. A
service provider there is an arm here. The reward is our common one (digest 1.4) instead of image quality and crashes.

Our choices: the paper's network has one input per provider, so it fits one fleet only. Here one small network is
applied to every arm, with the mean over all arms as a further input. So it fits any fleet, and the order of the arms
does not matter. Logits are the denoised values times eight: with values in ±1, a softmax over many arms would be nearly
uniform. A decision starts from zero noise, adds none and takes the most probable arm. So it is a function of the
context, and its propensity is 1. The forward pass uses numpy, because pure packages must not import an engine; a test
compares it with ONNX Runtime on the exported file. `training/agod.py` trains the network on the simulator. The model
card is beside the weights. Nothing is learned in service.
"""

from __future__ import annotations

import io
from importlib.resources import files

import numpy as np

from skyshore.policies.learning.arm_features import WIDTH, arm_features
from skyshore.policies.protocol import Arms, Context, Decision, Floats, Policy
from skyshore.rules.choose import load_share

STEPS = 5
LEAST_BETA, MOST_BETA = 0.1, 10.0
SHARPNESS = 8.0
STATE_WIDTH = WIDTH + 3
WEIGHTS = "weights/agod.npz"


def agod_state(arms: Arms, context: Context) -> Floats:
    """Input of the actor: [arms, STATE_WIDTH]."""
    more = (arms.is_cloud.astype(np.float64), arms.quality, load_share(arms.load, arms.capacity))
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
    """The denoising chain in numpy. The ONNX file beside the weights holds the same chain; a test compares the two."""

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
        """Read the weights that come with Skyshore. Decisions read no file."""
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
        """Take the most probable arm of the actor's policy."""
        logits = self._actor.logits(agod_state(arms, context))
        return Decision(int(logits.argmax()), scores=logits)


def _mish(values: Floats) -> Floats:
    return np.asarray(values * np.tanh(np.logaddexp(0.0, values)), np.float64)
