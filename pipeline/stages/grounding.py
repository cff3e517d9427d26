"""Generated transitions grounded by the simulator: it is put into s, applies a, and gives the exact s', r and done."""

from __future__ import annotations

import numpy as np

from envs.family import family_of
from offline_compositional_rl_datasets.state_transform import canonicalise
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions


def ground(transitions: Transitions, task: Task) -> Transitions:
    """The transitions that the simulator makes of these states and actions.

    A state becomes what the simulator observes once it has been put there (of CompoSuite: its joints, velocities,
    fingers and object); so all that follows from these agrees with them. Rows that the simulator cannot be put into
    (whose object has no rotation of unit length), and rows after which the simulation is not finite, are left out.
    Raises `ConfigError` where the task's family has no such simulator.
    """
    setter = family_of(task).state_setter(task)
    columns: list[tuple[np.ndarray, np.ndarray, float, np.ndarray, bool]] = []
    for row in np.flatnonzero(setter.determined(transitions.states)):
        action = np.clip(transitions.actions[row].astype(float), -1.0, 1.0)
        state = setter.set(transitions.states[row].astype(float), action)
        following, reward, terminated = setter.step(action)
        if np.isfinite(state).all() and np.isfinite(following).all() and np.isfinite(reward):
            columns.append((state, action, reward, following, terminated))
    if not columns:
        return transitions.take(slice(0, 0))
    states, actions, rewards, following, terminals = (np.array(column) for column in zip(*columns, strict=True))
    states, following = (canonicalise(array.astype(np.float32), task.layout) for array in (states, following))
    return Transitions(
        states=states,
        actions=actions.astype(np.float32),
        rewards=rewards.astype(np.float32),
        next_states=following,
        terminals=terminals,
        timeouts=np.zeros(len(states), dtype=bool),
        task=task,
    )
