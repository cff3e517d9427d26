"""What the environments of all tasks share: episodes and their seeds, snapshots, copies."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, TypedDict

import gymnasium
import numpy as np

from runtime.errors import ConfigError, DataError

if TYPE_CHECKING:
    from envs.render import Renderer
    from envs.robomimic.task import RobomimicTask
    from offline_compositional_rl_datasets.task import Task

CONTROL_FREQUENCY = 20
"""Control steps per second of CompoSuite."""

SEEDS = 2**32
"""Seeds of episodes are below: numpy's legacy generator, which places the objects, takes no others."""

DRAWN_SEEDS = 2**31
"""Seeds that an environment draws for itself are below."""

_STATE = "snapshot"
_METADATA = {"render_modes": ["rgb_array"], "render_fps": CONTROL_FREQUENCY}
_OF_EPISODE = ("task", "steps", "ended", "seed", "random")


class ViewOptions(TypedDict, total=False):
    """How pictures of an environment are made: `camera` by name, `width` and `height` in pixels."""

    render_mode: str | None
    camera: str
    width: int
    height: int


class TaskEnv(gymnasium.Env):
    """An environment of one task, simulated by MuJoCo.

    `snapshot` and `restore` give and take all that this episode and those after it depend on; copies (`copy.copy` as
    `copy.deepcopy`) and pickles are built on them. A copy shares nothing that changes with its original, steps to the
    same bits, and has no open renderer.

    An episode depends on its seed alone: that given to `reset`, or one drawn from `np_random`. `np_random_seed` tells
    the present episode's.
    """

    metadata: dict[str, Any] = _METADATA

    def __init__(
        self,
        task: Task | RobomimicTask,
        *,
        horizon: int | None,
        camera: str,
        width: int,
        height: int,
        render_mode: str | None = None,
    ) -> None:
        """Raises `ConfigError` for values that cannot be. `horizon` None: episodes have no last step."""
        if horizon is not None:
            expect_count("horizon", horizon)
        expect_count("width", width)
        expect_count("height", height)
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ConfigError(
                f"render_mode {render_mode!r}: expected None or {', '.join(self.metadata['render_modes'])} "
                "(a window: render_mode='human' of gymnasium.make, which shows these pictures)"
            )
        self.task, self.horizon, self.render_mode = task, horizon, render_mode
        self._picture = (camera, width, height)
        self.steps = 0
        self._ended = True
        self._build_and_note()

    def _build_and_note(self) -> None:
        before = set(self.__dict__)
        self._renderer: Renderer | None = None
        self._build()
        self._built = set(self.__dict__) - before

    @abstractmethod
    def _build(self) -> None:
        """Set the attributes that hold memory of MuJoCo, or what can be made again: copies make their own."""

    @abstractmethod
    def _begin(self, seed: int) -> None:
        """Put the simulation into the start of the episode with this seed, below `SEEDS`."""

    @abstractmethod
    def observation(self) -> np.ndarray:
        """The observation of the present state, as `reset` and `step` return it."""

    @abstractmethod
    def _physics(self) -> dict[str, Any]:
        """The simulation's part of a snapshot: plain values and arrays of its own."""

    @abstractmethod
    def _restore_physics(self, physics: Mapping[str, Any]) -> None:
        """Take what `_physics` gave in an environment of the same task."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode. Raises `ConfigError` for options, of which there are none, and a seed above 2^32 - 1."""
        if options:
            raise ConfigError(f"{self.task}: reset options {options}: expected none, there are no options")
        if seed is not None and seed >= SEEDS:
            raise ConfigError(f"{self.task}: seed {seed}: expected 0 to {SEEDS - 1}")
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(DRAWN_SEEDS)) if seed is None else seed
        self._np_random_seed = drawn
        self._begin(drawn)
        self.steps, self._ended = 0, False
        return self.observation(), self._first_info()

    def _first_info(self) -> dict[str, Any]:
        return {"success": False, "is_success": False}

    def _taken(self, action: np.ndarray) -> np.ndarray:
        """The action as float64. Raises `ResetNeeded` after an episode's end, `ValueError` for what is no action."""
        if self._ended:
            raise gymnasium.error.ResetNeeded(f"{self.task}: the episode has ended, call reset() before step()")
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"{self.task}: action of shape {np.shape(action)}, expected {self.action_space.shape}")
        action = np.asarray(action, dtype=np.float64)
        if not np.isfinite(action).all():
            raise ValueError(f"{self.task}: action {action} is not finite")
        return action

    def snapshot(self) -> dict[str, Any]:
        """All that this episode and those after it depend on, as plain values and arrays, for `restore`.

        Simulator state with warm start, gripper command, where goal and obstacle stand, step count, seed, and the
        state of the generator that draws seeds. Options of the constructor are not in it.
        """
        return {
            "task": self.task.name,
            "steps": self.steps,
            "ended": self._ended,
            "seed": self.np_random_seed,
            "random": self.np_random.bit_generator.state,
            **self._physics(),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from a `snapshot` of an environment of this task as that one would, to the last bit.

        Raises `DataError` for a snapshot of another task, or what is none.
        """
        if snapshot.get("task") != self.task.name:
            raise DataError(f"{self.task}: snapshot of task {snapshot.get('task')!r}, expected {self.task.name!r}")
        try:
            self._restore_physics({key: value for key, value in snapshot.items() if key not in _OF_EPISODE})
            self.np_random.bit_generator.state = snapshot["random"]
            self._np_random_seed = snapshot["seed"]
            self.steps, self._ended = snapshot["steps"], snapshot["ended"]
        except (KeyError, TypeError, ValueError) as error:
            self._ended = True
            raise DataError(f"{self.task}: not a snapshot of this environment ({error!r})") from error

    def __copy__(self) -> TaskEnv:
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        snapshot = self.snapshot()
        return {name: value for name, value in self.__dict__.items() if name not in self._built} | {_STATE: snapshot}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: value for name, value in state.items() if name != _STATE})
        self._build_and_note()
        self.restore(state[_STATE])

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


class HoldsViews:
    """Views into the memory of one environment's simulation: a copy would go on seeing the original's."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{type(self).__name__} belongs to one environment: copy or pickle the environment")


def expect_count(name: str, value: object) -> None:
    """Raises `ConfigError` unless the value is a whole number from 1."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} {value!r}: expected a whole number, at least 1")


def expect_positive(name: str, value: object) -> None:
    """Raises `ConfigError` unless the value is a finite number above 0."""
    number = value if isinstance(value, (int, float, np.integer, np.floating)) else math.nan
    if isinstance(value, bool) or not 0 < number < math.inf:
        raise ConfigError(f"{name} {value!r}: expected a finite number above 0")
