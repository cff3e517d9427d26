"""The policies published with CompoSuite (CompoSuite-Data): a chain of obstacle, object, objective and robot modules.

They are read from the folder a user downloaded, `<setting>/comp/s<seed>/pyt_save/state_dicts.pt`; nothing of them is
shipped. The mean action is the expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.composuite.simulation import ACTION_DIM
from envs.experts.batch import check_batch
from envs.pool import EnvPool
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from runtime.errors import DataError, one_line

_PREFIX = "pi.mu_net._module_list"

_CHAIN = (("obstacle", "obstacle"), ("object", "object"), ("objective", "goal"), ("robot", "proprioception"))
"""Axis that chooses the module, and factor of the state that it reads, node by node."""

_HORIZON = 500

Layers = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Node:
    """One module: `pre` reads the module's own factor, `post` the previous node's output and that."""

    part: slice
    pre: Layers
    post: Layers


def _tanh_layers(x: np.ndarray, layers: Layers) -> np.ndarray:
    for weight, bias in layers:
        x = np.tanh(x @ weight + bias)
    return x


class PublishedExpert:
    """The mean action of a published policy for one task: states (B, 77) to actions (B, 8) in [-1, 1]."""

    def __init__(self, path: Path, task: CompoSuiteTask) -> None:
        """Raises `DataError` where the file is missing, damaged or another network's."""
        from runtime.checkpoint import load_arrays  # imports torch, which no other environment needs

        self.task = task
        parameters = load_arrays(path, "model")
        try:
            self._nodes = [
                _Node(
                    part=COMPOSUITE.factor_slices[factor],
                    pre=_layers(parameters, node, "pre_interface", task.index(axis)),
                    post=_layers(parameters, node, "post_interface", task.index(axis)),
                )
                for node, (axis, factor) in enumerate(_CHAIN)
            ]
            shape = self(np.zeros((1, COMPOSUITE.state_dim))).shape
        except (KeyError, ValueError, IndexError) as error:  # layers that are missing or do not follow on each other
            raise DataError(f"{path}: not a published policy ({one_line(error)})") from error
        if not self._nodes[-1].post or shape != (1, ACTION_DIM):
            raise DataError(f"{path}: not a published policy, expected parameters {_PREFIX}.3.post_interface.*")

    def __call__(self, states: np.ndarray) -> np.ndarray:
        states = np.asarray(states, dtype=np.float32)
        check_batch(states)
        x = np.empty((len(states), 0), dtype=np.float32)
        for node in self._nodes:
            own = _tanh_layers(states[:, node.part], node.pre)
            x = _tanh_layers(np.concatenate([x, own], axis=1), node.post)
        return x


def _layers(parameters: dict[str, np.ndarray], node: int, part: str, module: int) -> Layers:
    """Weights (inputs, outputs) and biases of one module's linear layers, which alternate with their activations."""
    stem = f"{_PREFIX}.{node}.{part}.{module}"
    numbers = sorted(
        int(name.split(".")[-2]) for name in parameters if name.startswith(f"{stem}.") and name.endswith(".weight")
    )
    return [(parameters[f"{stem}.{i}.weight"].T.copy(), parameters[f"{stem}.{i}.bias"]) for i in numbers]


def published_policies(folder: Path) -> list[Path]:
    """All state dicts below a folder of the published arrangement. Raises `DataError` where there is none."""
    found = sorted(folder.glob("**/pyt_save/state_dicts.pt"))
    if not found:
        raise DataError(f"{folder}: no published policy, expected <setting>/comp/s<seed>/pyt_save/state_dicts.pt below")
    return found


def best_policy(folder: Path, task: CompoSuiteTask, episodes: int = 2) -> Path:
    """The published policy with the highest mean return on a task, over a few seeded episodes of 500 steps.

    Raises `DataError` where the folder holds none.
    """
    candidates = published_policies(folder)
    if len(candidates) == 1:
        return candidates[0]
    group = EnvPool(task, episodes, horizon=_HORIZON)

    def mean_return(path: Path) -> float:
        expert = PublishedExpert(path, task)
        states, total = group.reset(range(episodes)), 0.0
        for _ in range(_HORIZON):
            states, rewards, terminated, _, _ = group.step(expert(states))
            total += rewards.sum()
            if terminated.all():
                break
        return total / episodes

    return max(candidates, key=mean_return)
