"""CDIO's preference predictor: whether a video task needs mainly compute or mainly bandwidth (arXiv 2502.04078).

A stacked LSTM over the tasks of one stream. Each task is x_t = (index, complexity vector, required accuracy, required
delay); we read the paper's "+" as concatenation. The output is the probability that the task needs mainly compute.
`training/preference.py` trains the weights and describes the labels. The forward pass is numpy, one step per task with
the state of the stream, so the live profiler and the simulator compute the same values. The ONNX file next to the
weights is the same network; a test compares the two.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from skyshore.domain.task import Task

COMPLEXITY_WIDTH = 9
"""C_0 … C_7 and the two-dimensional entropy, as computed by `complexity_vector`."""
WIDTH = COMPLEXITY_WIDTH + 3
LONGEST_INDEX = 16
"""Later tasks of a stream get this index: training had no longer streams."""
FRAMES = 10
"""Frames of a task in training. The deadline of a task with other lengths is scaled in proportion."""
MIN_DEADLINE_S, MAX_DEADLINE_S = 0.05, 100.0
WEIGHTS = "weights/preference.npz"

Floats = NDArray[np.float32]
State = tuple[Floats, Floats]
"""Hidden and cell state, [layers, width] each."""


def preference_features(
    index: int, complexity: tuple[float, ...], min_quality: float, deadline_s: float
) -> NDArray[np.float32]:
    """Network input of one task, [WIDTH]. `deadline_s` is for `FRAMES` frames; unknown complexity counts as 0."""
    x = np.zeros(WIDTH, np.float32)
    x[0] = min(index, LONGEST_INDEX) / LONGEST_INDEX
    known = np.asarray(complexity[:COMPLEXITY_WIDTH], np.float32)
    x[1 : 1 + len(known)] = known
    x[1:COMPLEXITY_WIDTH] = np.log1p(1000.0 * x[1:COMPLEXITY_WIDTH]) / 5.0
    x[COMPLEXITY_WIDTH] /= 10.0
    x[-2] = min_quality
    x[-1] = np.log10(min(max(deadline_s, MIN_DEADLINE_S), MAX_DEADLINE_S)) / 1.5
    return x


@dataclass(frozen=True, slots=True)
class LstmLayer:
    """One layer. Gates in the order input, forget, cell, output; inputs and hidden state are concatenated."""

    weight: Floats
    """[4·width, inputs + width]."""
    bias: Floats
    """[4·width]."""


class PreferenceNetwork:
    """The weights and one step of the network."""

    def __init__(self, layers: tuple[LstmLayer, ...], head: Floats, head_bias: float) -> None:
        """`head` [width] maps the hidden state of the last layer to a logit."""
        self._layers, self._head, self._head_bias = layers, head, head_bias

    @classmethod
    def from_bytes(cls, data: bytes) -> PreferenceNetwork:
        """Read the file of `training/preference.py`. Raises KeyError or ValueError for other data."""
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            depth = sum(name.startswith("weight") for name in stored.files)
            layers = tuple(LstmLayer(stored[f"weight{i}"], stored[f"bias{i}"]) for i in range(depth))
            return cls(layers, stored["head"], float(stored["head_bias"]))

    @classmethod
    def shipped(cls) -> PreferenceNetwork:
        """The network with the weights that are part of Skyshore."""
        return cls.from_bytes(files("skyshore.profiling").joinpath(WEIGHTS).read_bytes())

    def fresh_state(self) -> State:
        """The state before the first task of a stream."""
        shape = (len(self._layers), len(self._head))
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def step(self, x: Floats, state: State) -> tuple[float, State]:
        """Probability that compute is preferred, and the state after this task."""
        hidden, cell = np.empty_like(state[0]), np.empty_like(state[1])
        width, below = len(self._head), x
        for i, layer in enumerate(self._layers):
            gates = layer.weight @ np.concatenate((below, state[0][i])) + layer.bias
            opened = _sigmoid(gates)
            wanted = np.tanh(gates[2 * width : 3 * width])
            cell[i] = opened[width : 2 * width] * state[1][i] + opened[:width] * wanted
            below = hidden[i] = opened[3 * width :] * np.tanh(cell[i])
        logit = float(self._head @ below) + self._head_bias
        return float(_sigmoid(np.float32(logit))), (hidden, cell)


class PreferencePredictor:
    """Keeps the state of at most `most` streams; forgets the least recently used one."""

    def __init__(self, network: PreferenceNetwork, most: int = 4096) -> None:
        """A stream takes about 1 kB."""
        self._network, self._most = network, most
        self._streams: OrderedDict[str, tuple[int, State]] = OrderedDict()

    def predict(self, task: Task, frames: int, complexity: tuple[float, ...]) -> float:
        """Probability that this video task needs mainly compute. The segments of one job form a stream, in order."""
        known = self._streams.pop(task.job_id) if task.job_id in self._streams else None
        index, state = known or (0, self._network.fresh_state())
        x = preference_features(index, complexity, task.min_quality, task.deadline_s * FRAMES / max(frames, 1))
        probability, state = self._network.step(x, state)
        if task.job_id:
            self._streams[task.job_id] = index + 1, state
            if len(self._streams) > self._most:
                self._streams.popitem(last=False)
        return probability


def _sigmoid(values: Floats | np.float32) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -30.0, 30.0))), np.float32)
