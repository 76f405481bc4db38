"""Trains AGOD's diffusion actor by discrete soft actor–critic on simulated fleets (arXiv 2303.13052; digest 3.4).

The actor is `skyshore.policies.papers.agod.DiffusionActor` in torch, trained through all denoising steps, with noise.
From the paper: twin critics with slowly following targets, entropy weight 0.05, γ = 0.95, τ = 0.005, five steps. Ours:
networks shared by all arms, batches of 128 (its 512 takes four times as long for the same figures here), and fleets
drawn at random, so that the actor is judged on fleets that it was not trained on.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from numpy.typing import NDArray
from torch import Tensor, nn

from cloud_node.onnx_export import export_onnx
from skyshore.policies.papers.agod import SHARPNESS, STATE_WIDTH, STEPS, Agod, DiffusionActor, agod_state, schedule
from skyshore.policies.protocol import Arms, Context, Decision, Feedback, Floats, Policy
from training.agod_fleets import Score, random_fleet, registered, run
from training.preference_cameras import Report

MOST_ARMS = 16
MOST_OPEN = 4096
LEARNER = "agod.learning"


@dataclass(frozen=True, slots=True)
class AgodSettings:
    """One training run; the same values give the same weights on the same machine."""

    seed: int = 7
    fleets: int = 36
    seconds: float = 30.0
    """Virtual seconds of each fleet."""
    judged: int = 12
    """Fleets of another seed, never trained on."""
    hidden: int = 48
    batch: int = 128
    every: int = 6
    """Outcomes between two gradient steps."""
    room: int = 100_000
    gamma: float = 0.95
    entropy: float = 0.05
    tau: float = 0.005
    actor_rate: float = 3e-4
    critic_rate: float = 1e-3


class TorchActor(nn.Module):
    """State [..., arms, STATE_WIDTH] → logits [..., arms]."""

    whole: Tensor
    rest: Tensor
    of_start: Tensor
    of_now: Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.state = nn.Linear(STATE_WIDTH, hidden)
        self.noise = nn.Linear(1, hidden, bias=False)
        self.time = nn.Embedding(STEPS, hidden)
        self.mix = nn.Linear(2 * hidden, hidden)
        self.out = nn.Linear(hidden, 1)
        for name, values in zip(("whole", "rest", "of_start", "of_now"), schedule(), strict=True):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def forward(self, state: Tensor, start: Tensor, noise: Tensor, mask: Tensor) -> Tensor:
        """`start` [..., arms] is x_T, `noise` [STEPS, ..., arms] what each step adds; `mask` is 0 where no arm is."""
        seen, value = self.state(state), start
        share = (mask / mask.sum(-1, keepdim=True))[..., None]
        for step in reversed(range(STEPS)):
            first = F.mish(seen + self.noise(value[..., None]) + self.time.weight[step])
            pooled = (first * share).sum(-2, keepdim=True).expand_as(first)
            guess = self.out(F.mish(self.mix(torch.cat([first, pooled], -1))))[..., 0]
            clean = (self.whole[step] * value - self.rest[step] * guess).clamp(-1, 1)
            value = self.of_start[step] * clean + self.of_now[step] * value + noise[step]
        return SHARPNESS * value


class Critic(nn.Module):
    """State → value of every arm."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(STATE_WIDTH, hidden)
        self.second = nn.Linear(2 * hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, state: Tensor, mask: Tensor) -> Tensor:
        """Values [..., arms]."""
        first = F.mish(self.first(state))
        share = (mask / mask.sum(-1, keepdim=True))[..., None]
        pooled = (first * share).sum(-2, keepdim=True).expand_as(first)
        values: Tensor = self.out(F.mish(self.second(torch.cat([first, pooled], -1))))[..., 0]
        return values


class Replay:
    """Replay buffer of transitions, padded to MOST_ARMS."""

    def __init__(self, room: int) -> None:
        self._state = np.zeros((room, MOST_ARMS, STATE_WIDTH), np.float32)
        self._mask = np.zeros((room, MOST_ARMS), np.float32)
        self._after, self._after_mask = np.zeros_like(self._state), np.zeros_like(self._mask)
        self._arm, self._reward = np.zeros(room, np.int64), np.zeros(room, np.float32)
        self.count = 0

    def add(self, state: Floats, arm: int, reward: float, after: Floats) -> None:
        """Add one transition; the oldest is overwritten."""
        place = self.count % len(self._arm)
        self._arm[place], self._reward[place] = arm, reward
        for rows, mask, values in ((self._state, self._mask, state), (self._after, self._after_mask, after)):
            rows[place], mask[place] = 0.0, 0.0
            rows[place, : len(values)], mask[place, : len(values)] = values, 1.0
        self.count += 1

    def draw(self, size: int, rng: np.random.Generator) -> list[Tensor]:
        """State, mask, arm, reward, state after, its mask."""
        chosen = rng.integers(min(self.count, len(self._arm)), size=size)
        arrays: list[NDArray[np.generic]] = [
            self._state, self._mask, self._arm, self._reward, self._after, self._after_mask,
        ]  # fmt: skip
        return [torch.from_numpy(array[chosen]) for array in arrays]


class AgodLearner(Policy):
    """Samples actions, stores transitions, and takes a gradient step every few outcomes."""

    def __init__(self, settings: AgodSettings) -> None:
        torch.manual_seed(settings.seed)
        self._settings, self._rng = settings, np.random.default_rng([settings.seed, 3])
        self.actor = TorchActor(settings.hidden)
        self._critics = [Critic(settings.hidden) for _ in range(2)]
        self._targets = [Critic(settings.hidden) for _ in range(2)]
        for critic, target in zip(self._critics, self._targets, strict=True):
            target.load_state_dict(critic.state_dict())
        weights = [weight for critic in self._critics for weight in critic.parameters()]
        self._critic_optimiser = torch.optim.Adam(weights, settings.critic_rate)
        self._actor_optimiser = torch.optim.Adam(self.actor.parameters(), settings.actor_rate)
        self._replay = Replay(settings.room)
        self._open: OrderedDict[str, tuple[Floats, int, Floats | None]] = OrderedDict()
        """Task id → state, arm, and the state at the decision after, once there was one."""
        self._last = ""
        self.steps = 0

    def select(self, context: Context, arms: Arms) -> Decision:
        """Sample from the actor; the decision before now knows what followed."""
        state = agod_state(arms, context)[:MOST_ARMS]
        if self._last in self._open:
            before, arm, _ = self._open[self._last]
            self._open[self._last] = before, arm, state
        with torch.inference_mode():
            rows = torch.from_numpy(state.astype(np.float32))
            start, noise = _noise((len(state),))
            logits = self.actor(rows, start, noise, torch.ones(len(state)))
            arm = int(torch.distributions.Categorical(logits=logits).sample())  # type: ignore[no-untyped-call]
        self._last = context.task.task_id
        self._open[self._last] = state, arm, None
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return Decision(arm)

    def update(self, feedback: Feedback) -> None:
        """Complete the transition and learn."""
        state, arm, after = self._open.pop(feedback.context.task.task_id, (None, 0, None))
        if state is None or after is None:
            return
        self._replay.add(state, arm, feedback.reward, after)
        if self._replay.count >= 10 * self._settings.batch and self._replay.count % self._settings.every == 0:
            self._learn()

    def forget_open(self) -> None:
        """Start a new fleet: drop the open transitions of the last one."""
        self._open.clear()

    def _learn(self) -> None:
        settings = self._settings
        state, mask, arm, reward, after, after_mask = self._replay.draw(settings.batch, self._rng)
        with torch.no_grad():
            chances, log_chances = self._policy(after, after_mask)
            least = torch.minimum(*(target(after, after_mask) for target in self._targets))
            value = (chances * (least - settings.entropy * log_chances)).sum(-1)
            wanted = reward + settings.gamma * value
        values = [critic(state, mask).gather(-1, arm[:, None])[:, 0] for critic in self._critics]
        loss = torch.stack([F.mse_loss(each, wanted) for each in values]).sum()
        _descend(self._critic_optimiser, loss)
        chances, log_chances = self._policy(state, mask)
        with torch.no_grad():
            least = torch.minimum(*(critic(state, mask) for critic in self._critics))
        loss = (chances * (settings.entropy * log_chances - least)).sum(-1).mean()
        _descend(self._actor_optimiser, loss)
        with torch.no_grad():
            for critic, target in zip(self._critics, self._targets, strict=True):
                for ours, theirs in zip(critic.parameters(), target.parameters(), strict=True):
                    theirs.lerp_(ours, settings.tau)
        self.steps += 1

    def _policy(self, state: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        start, noise = _noise(tuple(mask.shape))
        logits = self.actor(state, start, noise, mask).masked_fill(mask == 0, -1e9)
        log_chances = F.log_softmax(logits, -1)
        return log_chances.exp() * mask, log_chances * mask


def train_agod(settings: AgodSettings, report: Report) -> tuple[TorchActor, int]:
    """Train over fleet after fleet; the actor and the gradient steps it took."""
    rng, learner = np.random.default_rng([settings.seed, 1]), AgodLearner(settings)
    with registered(LEARNER, learner):
        for number in range(settings.fleets):
            learner.forget_open()
            score = run(random_fleet(rng, LEARNER, settings.seconds))
            if number % 5 == 4:
                report(f"fleet {number + 1}/{settings.fleets}: {learner.steps} steps, {_summary(score)}")
    return learner.actor.eval(), learner.steps


PEERS = ("random", "least_loaded", "shortest_delay", "cs_ucb")


def judge(settings: AgodSettings, weights: Path, report: Report) -> dict[str, dict[str, float]]:
    """Figures of the saved actor and its peers on the same fleets, none of them trained on."""
    actor = DiffusionActor.from_bytes(weights.read_bytes())
    figures = {}
    with registered(LEARNER, Agod(np.random.default_rng(0), actor=actor)):
        for policy in (LEARNER, *PEERS):
            rng = np.random.default_rng([settings.seed, 2])
            scores = [run(random_fleet(rng, policy, settings.seconds)) for _ in range(settings.judged)]
            met, joules = sum(score.met for score in scores), sum(score.joules for score in scores)
            name = "agod" if policy == LEARNER else policy
            figures[name] = {
                "mean_attainment": round(float(np.mean([score.attainment for score in scores])), 4),
                "joules_per_met": round(joules / max(met, 1), 2),
            }
            report(f"{name}: {figures[name]}")
    return figures


def card(settings: AgodSettings, steps: int, figures: dict[str, dict[str, float]]) -> dict[str, object]:
    """What made the weights and how they did on fleets never trained on."""
    return {
        "name": "agod",
        "made_by": f"skyshore train agod --seed {settings.seed}",
        "settings": asdict(settings),
        "gradient_steps": steps,
        "trained_with": f"torch {torch.__version__}",
        "heldout": f"{settings.judged} random fleets of another seed, {settings.seconds:g} virtual seconds each",
        "heldout_figures": figures,
    }


def save(actor: TorchActor, path: Path) -> None:
    """Write the arrays that `skyshore.policies.papers.agod` reads."""
    arrays = {name: value.detach().numpy() for name, value in actor.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


class FromZero(nn.Module):
    """What is exported: state [arms, STATE_WIDTH] → logits [arms], as decided in service."""

    def __init__(self, actor: TorchActor) -> None:
        super().__init__()
        self._actor = actor

    def forward(self, state: Tensor) -> Tensor:
        """Logits from zero noise."""
        zero = state[:, 0] * 0.0
        logits: Tensor = self._actor(state, zero, zero.expand(STEPS, -1), zero + 1.0)
        return logits


def export(actor: TorchActor, path: Path) -> None:
    """Write what is decided with in service: state → logits, for any number of arms."""
    arms = torch.export.Dim("arms")
    export_onnx(
        FromZero(actor),
        (torch.randn(5, STATE_WIDTH),),
        path,
        inputs=("state",),
        outputs=("logits",),
        dynamic=({0: arms},),
    )


def _noise(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """x_T and what each step adds: σ_t of the posterior, nothing at the last step."""
    whole, _, _, _ = schedule()
    kept = 1.0 / whole**2
    before = np.append(1.0, kept[:-1])
    variance = (1.0 - kept / before) * (1.0 - before) / (1.0 - kept)
    scale = torch.from_numpy(np.sqrt(np.maximum(variance, 0.0)).astype(np.float32))
    return torch.randn(shape), torch.randn((STEPS, *shape)) * scale.view(-1, *[1] * len(shape))


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _summary(score: Score) -> str:
    return f"{score.attainment:.1%} of {score.requests} met, {score.joules_per_met:.1f} J each"
