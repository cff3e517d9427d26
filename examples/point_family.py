"""A factored task family of one's own, start to end in a minute: a point on a windy plane that has to reach a place.

Two bodies x three places x three winds make 18 tasks. Twelve give expert data; for the other six, which nobody
demonstrated, the generator makes data, and a policy that saw nothing else is tried in the environment.

Example: python -m examples.point_family --out point
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.cli import parse_flags
from runtime.errors import run_main

# 1. The axes of the family and their elements.
SPEEDS = {"light": 0.2, "heavy": 0.1}  # greatest step
PLACES = {"west": (-0.7, 0.0), "east": (0.7, 0.0), "north": (0.0, 0.7)}
WINDS = {"calm": (0.0, 0.0), "breeze": (0.05, 0.0), "updraught": (0.0, 0.05)}  # push per step
AXES = {"body": tuple(SPEEDS), "place": tuple(PLACES), "wind": tuple(WINDS)}

HORIZON, REACHED = 25, 0.1


@dataclass(frozen=True)
class PointTask:
    """What the generator asks of a task: a name, and the one-hots of its axes as one condition (8,) float32."""

    body: str
    place: str
    wind: str

    @property
    def name(self) -> str:
        return f"{self.body}_{self.place}_{self.wind}"

    @property
    def one_hot(self) -> np.ndarray:
        blocks = [
            np.eye(len(names), dtype=np.float32)[names.index(getattr(self, axis))] for axis, names in AXES.items()
        ]
        return np.concatenate(blocks)


TASKS = [PointTask(*elements) for elements in itertools.product(*AXES.values())]
HELD_OUT = [TASKS[i] for i in (1, 5, 6, 9, 13, 17)]  # every element is in the data of other tasks


# 2. The layout of a state, one factor per axis: the one thing that ties the generator to a family.
def point_layout():
    from offline_compositional_rl_datasets.layout import Factor, FactoredLayout

    return FactoredLayout(
        factors=(Factor("body", 2, "body"), Factor("place", 4, "place"), Factor("wind", 2, "wind")),
        action_dim=2,
        axes=tuple(AXES.items()),
        ids_after="wind",
    )


# 3. The environment; any simulator will do.
class PointEnv:
    """State (8,): position, place, way to the place, wind. Action (2,) in [-1, 1]; reward exp(-distance)."""

    def __init__(self, task: PointTask) -> None:
        self.speed, self.place, self.wind = SPEEDS[task.body], np.array(PLACES[task.place]), np.array(WINDS[task.wind])
        self.position = np.zeros(2)

    def observe(self) -> np.ndarray:
        return np.concatenate([self.position, self.place, self.place - self.position, self.wind]).astype(np.float32)

    def reset(self, random: np.random.Generator) -> np.ndarray:
        self.position = random.uniform(-1, 1, 2)
        return self.observe()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        self.position = self.position + self.speed * np.clip(action, -1, 1) + self.wind
        return self.observe(), float(np.exp(-np.linalg.norm(self.place - self.position)))

    def expert(self) -> np.ndarray:
        return np.clip((self.place - self.position - self.wind) / self.speed, -1, 1)


# 4. Data of a task as `Transitions`; a task of one's own files is read into the same dataclass.
def demonstrate(task: PointTask, episodes: int, random: np.random.Generator):
    from offline_compositional_rl_datasets.transitions import Transitions

    env, rows = PointEnv(task), []
    for _ in range(episodes):
        state = env.reset(random)
        for _ in range(HORIZON):
            action = np.clip(env.expert() + 0.2 * random.standard_normal(2), -1, 1).astype(np.float32)
            following, reward = env.step(action)
            rows.append((state, action, np.float32(reward), following))
            state = following
    states, actions, rewards, following = (np.array(column) for column in zip(*rows, strict=True))
    never = np.zeros(len(rows), bool)
    return Transitions(states, actions, rewards, following, never, never, task)


def success(task: PointTask, policy, random: np.random.Generator, episodes: int = 50) -> float:
    """Share of episodes that end at the place."""
    env, reached = PointEnv(task), 0
    for _ in range(episodes):
        state = env.reset(random)
        for _ in range(HORIZON):
            state, _ = env.step(policy(state[None])[0])
        reached += bool(np.linalg.norm(env.place - env.position) < REACHED)
    return reached / episodes


def wrong_step(task: PointTask, transitions) -> float:
    """Median distance between generated next positions and those of the environment from the same state."""
    env, errors = PointEnv(task), []
    for state, action, following in zip(transitions.states, transitions.actions, transitions.next_states, strict=True):
        env.position = state[:2].astype(float)
        errors.append(np.linalg.norm(env.step(action)[0][:2] - following[:2]))
    return float(np.median(errors))


def main(out: Path, steps: int = 1200, samples: int = 1000, policy_steps: int = 600, seed: int = 0) -> None:
    """Train the generator, generate the held-out tasks, train a policy on each set alone, and try it.

    Args:
        out: folder for the generator
        steps: of the generator's training
        samples: transitions that are generated per held-out task
        policy_steps: gradient steps of TD3+BC
        seed: of everything
    """
    for task, rate, wrong in results(out, HELD_OUT, steps=steps, samples=samples, policy_steps=policy_steps, seed=seed):
        print(f"{task.name:24s} success {rate:.2f}, wrong by {wrong:.4f} per step", flush=True)


def results(out: Path, tasks: list[PointTask], *, steps: int, samples: int, policy_steps: int, seed: int = 0):
    """Yields each task with the success of its policy and how far generated steps are from true ones."""
    import torch

    from corl.policy import Policy
    from corl.replay import ReplayData
    from corl.td3_bc import TD3BC, TD3BCConfig
    from diffusion.config import SamplerConfig, TrainConfig
    from diffusion.denoisers import DenoiserConfig
    from diffusion.generate import generate
    from diffusion.model import DiffusionModel
    from diffusion.pool import Pool
    from diffusion.train import train
    from offline_compositional_rl_datasets.state_transform import StateTransform
    from offline_compositional_rl_datasets.transitions import Transitions

    layout, device, random = point_layout(), torch.device("cpu"), np.random.default_rng(seed)
    data = [demonstrate(task, 40, random) for task in TASKS if task not in HELD_OUT]
    network = DenoiserConfig(hidden=32, depth=2, heads=2, time_scale=100.0)
    training = TrainConfig(
        steps=steps, small_batch_size=128, learning_rate=5e-3, warmup_steps=50, ema_decay=0.99, ema_every=1,
        std_offset=1e-3, delta_next=True, precision="float32",
    )  # fmt: skip
    checkpoint = out / f"model-{steps}.pt"
    train(
        Pool.of(data, layout, timeouts_as_terminals=False),
        network,
        training,
        layout,
        checkpoint,
        seed=seed,
        device=device,
    )
    model = DiffusionModel.load(checkpoint, layout, device)
    for task in tasks:
        sampling = SamplerConfig(solver="dpmpp_2m", steps=16, num_samples=samples, batch_size=samples)
        matrix = generate(model, task.one_hot, sampling, seed=seed)
        matrix[:, layout.action] = matrix[:, layout.action].clip(-1, 1)
        made = Transitions.from_matrix(matrix, task, layout)
        replay = ReplayData(made, StateTransform.fit(made.states, layout), device, timeouts_as_terminals=False)
        learner = TD3BC.build(layout.state_dim, layout.action_dim, TD3BCConfig(alpha=0.2), seed=seed, device=device)
        for _ in range(policy_steps):
            learner.update(replay.batch(torch.randint(len(replay), (256,), generator=learner.generator)))
        policy = Policy(learner.actor, replay.transform)
        yield task, success(task, policy, random), wrong_step(task, made)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
