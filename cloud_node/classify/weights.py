"""Model files: plain arrays plus a card that says what they are and how they were made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cloud_node.classify.model import ModelConfig, SpaceTimeTransformer
from skyshore.domain.errors import NotFound

SHIPPED = Path(__file__).parent / "weights" / "actions.npz"
"""The model that comes with Skyshore."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Where weights come from and how good they are."""

    name: str
    labels: tuple[str, ...]
    seed: int
    steps: int
    heldout_clips: int
    heldout_accuracy: float
    """Share of held-out clips whose action was named right."""
    single_frame_accuracy: float
    """The same for an equal model that saw one frame of each clip, trained the same way."""
    trained_with: str


def save(path: Path, model: SpaceTimeTransformer, card: ModelCard) -> None:
    """Write weights, configuration and card into one .npz file."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    about = json.dumps({"config": asdict(model.config), "card": asdict(card)})
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, __about__=np.frombuffer(about.encode(), np.uint8), **arrays)


def load(path: Path = SHIPPED) -> tuple[SpaceTimeTransformer, ModelCard]:
    """Read a file that `save` wrote; the model is ready for inference.

    Raises:
        NotFound: there is no such file.
    """
    if not path.is_file():
        raise NotFound(f"no weights at {path}; make them with `skyshore train classify --out {path.parent}`")
    with np.load(path) as stored:
        about = json.loads(stored["__about__"].tobytes())
        state = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "__about__"}
    model = SpaceTimeTransformer(ModelConfig(**about["config"]))
    model.load_state_dict(state)
    card = about["card"]
    return model.eval(), ModelCard(**{**card, "labels": tuple(card["labels"])})
