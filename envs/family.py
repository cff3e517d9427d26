"""What the loop asks of a family of tasks, and the family of a name.

A family is a value: the constant `FAMILY` of a module, an instance of a subclass of `TaskFamily`. CompoSuite's is
`envs.composuite.family`, a family of one's own is a module of one's own project.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import itertools
import math
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeGuard, TypeVar

import gymnasium
import numpy as np

from envs.disturbance import Disturbance
from envs.opengl import RenderError
from offline_compositional_rl_datasets.hdf5 import find_task_file, read_expert
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.splits import Split, covering_split, load_split, split_file
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import EpisodeEnds, Transitions
from runtime.errors import ConfigError, TaskError, UserError, one_line

BUILT_IN = {"composuite": "envs.composuite.family:FAMILY"}
"""Name in a configuration -> where the family is."""

ENTRY_POINTS = "icdg.families"
"""The group of entry points by which an installed package gives its families a name."""

_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

T = TypeVar("T", bound=Task)

Expert = Callable[[np.ndarray], np.ndarray]
"""States (B, S) to actions (B, A) in [-1, 1]."""


class StateSetter(Protocol):
    """A task's simulator that is put into observed states and stepped once from each."""

    def determined(self, states: np.ndarray) -> np.ndarray:
        """(N,) bool: which of states (N, S) the simulator can be put into."""

    def set(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Put in a state (S,), before `action` (A,); gives the state that the simulator itself observes there."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """The next state (S,), the reward, and whether the episode ends there."""


class TaskFamily(Generic[T]):
    """A family of tasks. A subclass sets `name` and `task_class` and writes `make_env`; the rest it may leave.

    `name` is a part of the names of files and data sets. Optional parts are `expert` (the loop then records what
    expert data is missing), a method `set_state` of the environments (for `ground`) and their `render` (for pictures).
    Commands that need a part that is not there say so.
    """

    name: str
    task_class: type[T]
    splits_folder: Path | None = None
    """Where the family's published splits are, if it has any."""
    control_frequency: float | None = None
    """Control steps per second, for data sets and films; None: the `render_fps` that the environments' metadata say."""

    def __init__(self) -> None:
        """Raises `TaskError` where axes, elements and layout do not belong together."""
        axes, layout = self.task_class.axes(), self.task_class.layout
        if not re.fullmatch(r"[a-z][a-z0-9]*", self.name):
            raise TaskError(f"family {self.name!r}: expected a name of small letters and digits")
        if sorted(axes) != sorted(axis for axis, _ in layout.axes):
            named = ", ".join(axis for axis, _ in layout.axes)
            raise TaskError(f"family {self.name}: its tasks have {', '.join(axes)}, its layout the axes {named}")
        for axis, element in ((axis, element) for axis, elements in layout.axes for element in elements):
            if not re.fullmatch(r"[A-Za-z0-9.-]+", element):
                raise TaskError(f"family {self.name}: {axis} {element!r}: expected letters, digits, - and . alone")
        if self.control_frequency is not None and not _is_rate(self.control_frequency):
            told = f"control_frequency {self.control_frequency!r}"
            raise TaskError(f"family {self.name}: {told}, expected control steps per second, above 0")

    def __repr__(self) -> str:
        return f"<family {self.name}>"

    # The tasks.

    @property
    def layout(self) -> FactoredLayout:
        return self.task_class.layout

    def parse(self, name: str) -> T:
        """The task of a name. Raises `TaskError` where there is none."""
        return self.task_class.parse(name)

    def tasks(self) -> list[T]:
        """All tasks, in the order that seeded splits shuffle."""
        elements = dict(self.layout.axes)
        return [self.task_class(*each) for each in itertools.product(*(elements[a] for a in self.task_class.axes()))]

    def tasks_with(self, axis: str, element: str) -> list[T]:
        """All tasks with an element. Raises `TaskError` where the family has no such axis or element."""
        elements = dict(self.layout.axes).get(axis, ())
        if element not in elements:
            raise TaskError(f"family {self.name}: {axis} {element!r}, expected {', '.join(elements) or 'another axis'}")
        return [task for task in self.tasks() if getattr(task, axis) == element]

    def split(self, kind: str, seed: int, folder: Path | None = None) -> Split:
        """Which tasks give expert data and which are held out.

        That of the file `<folder>/<kind>/split_<seed>.json`, by itself in the family's `splits_folder`; of the kind
        `default`, where there is no such file, one drawn from the seed. Raises `DataError` for a file that is missing
        or malformed, `ConfigError` where there is no folder to look into.
        """
        folder = folder or self.splits_folder
        if kind == "default" and (folder is None or not split_file(folder, kind, seed).exists()):
            return covering_split(self.tasks(), seed)
        if folder is None:
            raise ConfigError(
                f"experiment_type {kind}: family {self.name} has no published splits, expected default, or a "
                f"splits_path with {kind}/split_{seed}.json"
            )
        return load_split(self.task_class, folder, kind, seed)

    def curriculum_axes(self) -> dict[str, tuple[str, ...]]:
        """What the curriculum rotates over: axes and their elements, in the order that its seed shuffles."""
        return dict(self.layout.axes)

    @property
    def grid_axes(self) -> tuple[str, ...]:
        """How the page shows all tasks: the axis of rows, that of columns, and those that have a grid per element."""
        return self.task_class.axes()

    @property
    def table_columns(self) -> tuple[str, ...]:
        """What tables call the axes, in the order of a task's elements."""
        return self.task_class.axes()

    # Their data.

    def data_file(self, data_path: Path, dataset_type: str, task: T) -> Path:
        """The file of a task's data. Raises `DataError` naming the places that were looked at where there is none."""
        return find_task_file(data_path, dataset_type, task)

    def read_data(self, path: Path, task: T, *, episode_ends: EpisodeEnds = "drop") -> Transitions:
        """The transitions of a task's file. Raises `DataError` for what is no such file."""
        return read_expert(path, task, episode_ends=episode_ends)

    # Their simulator.

    def make_env(self, task: T, render_mode: str | None = None) -> gymnasium.Env:
        """The environment of a task, to be written by a subclass.

        It observes the state (S,) of the layout and tells `info["success"]` (or `info["is_success"]`) in every step.
        `render_mode` is "rgb_array" where pictures are wanted.
        """
        raise self._lacks("simulator", "make_env")

    def environment(self, task: T, *, horizon: int | None = None, render_mode: str | None = None) -> gymnasium.Env:
        """The environment of a task as evaluation takes it: checked, actions in [-1, 1], cut off at `horizon` steps.

        Raises `TaskError` where states or actions have other sizes than the layout says, `ConfigError` where there is
        no simulator.
        """
        env = self.make_env(task) if render_mode is None else self.make_env(task, render_mode)
        self._expect_box(task, "observations", env.observation_space, self.layout.state_dim)
        actions = self._expect_box(task, "actions", env.action_space, self.layout.action_dim)
        if not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
            raise TaskError(f"family {self.name}: actions of {task} are {actions}, expected finite bounds")
        if (actions.low != -1).any() or (actions.high != 1).any():
            env = gymnasium.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
        env = _AsEvaluated(env, self.name)
        return env if horizon is None else gymnasium.wrappers.TimeLimit(env, horizon)

    def _expect_box(self, task: T, what: str, space: gymnasium.Space[Any], size: int) -> gymnasium.spaces.Box:
        if not isinstance(space, gymnasium.spaces.Box) or space.shape != (size,):
            raise TaskError(f"family {self.name}: {what} of {task} are {space}, expected a Box of shape ({size},)")
        return space

    def drawn_environment(
        self, task: T, *, horizon: int | None = None, size: tuple[int, int] = (256, 256), camera: str = "film"
    ) -> gymnasium.Env:
        """One whose `render` gives pictures (height, width, 3) uint8, of that `size` (width, height) where it can.

        Raises `ConfigError` where there are none.
        """
        env = self.environment(task, horizon=horizon, render_mode="rgb_array")
        if "rgb_array" not in env.metadata.get("render_modes", ()):
            raise ConfigError(f"family {self.name}: no pictures, its environments do not render rgb_array")
        return env

    def steps_per_second(self, env: gymnasium.Env | None = None) -> float | None:
        """Control steps per second: `control_frequency`, else `render_fps` of `env` (None: of the first task's).

        None where neither says it.
        """
        if self.control_frequency is not None:
            return self.control_frequency
        if env is None:
            if not self.has("make_env"):
                return None
            with contextlib.closing(self.make_env(self.tasks()[0])) as made:
                return self.steps_per_second(made)
        rate = env.metadata.get("render_fps")
        return float(rate) if _is_rate(rate) else None

    def expert(self, task: T, policy: Path | None = None) -> Expert:
        """Optional: an expert, from which the loop records the training tasks' data where they are missing.

        `policy` is a file of a policy to be recorded instead, for families that have such files.
        """
        raise self._lacks("experts", "expert")

    def disturbance(self, task: T) -> Disturbance:
        """How recordings of the expert are thrown off their path: by random actions, unless a subclass knows better."""
        return Disturbance(self.layout.action_dim)

    def state_setter(self, task: T) -> StateSetter:
        """Optional, for grounding: the simulator, put into states; by itself by the environments' `set_state`."""
        env = self.environment(task)
        set_state: Callable[[np.ndarray], np.ndarray] | None = getattr(env.unwrapped, "set_state", None)
        if set_state is None:
            raise self._lacks("simulator that is put into states", "set_state of its environments")
        return _SetState(env, set_state)

    def has(self, part: str) -> bool:
        """Whether the subclass has written the optional method `part`."""
        return getattr(type(self), part) is not getattr(TaskFamily, part)

    def _lacks(self, what: str, method: str) -> ConfigError:
        return ConfigError(f"family {self.name}: it has no {what} ({method} is not written)")


def _is_rate(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and 0 < value < math.inf


class _AsEvaluated(gymnasium.Wrapper):
    """States as float32 and the success of every step under one name."""

    def __init__(self, env: gymnasium.Env, family: str) -> None:
        super().__init__(env)
        self._family = family

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return np.asarray(observation, np.float32), {"success": False, **info}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        success = info.get("success", info.get("is_success"))
        if success is None:
            known = ", ".join(info) or "nothing"
            raise TaskError(f"family {self._family}: a step's info has {known}, expected success or is_success")
        info = {**info, "success": bool(success)}
        return np.asarray(observation, np.float32), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """Raises `RenderError` for whatever keeps the environment from drawing."""
        try:
            return self.env.render()
        except UserError:
            raise
        except Exception as error:  # OpenGL's loaders raise whatever they stumble over
            raise RenderError(f"family {self._family}: no picture can be made here ({one_line(error)})") from error


class _SetState:
    """The `StateSetter` of an environment with a method `set_state(state)`, which gives the state that it observes."""

    def __init__(self, env: gymnasium.Env, set_state: Callable[[np.ndarray], np.ndarray]) -> None:
        self._env, self._set_state = env, set_state
        env.reset(seed=0)

    def determined(self, states: np.ndarray) -> np.ndarray:
        return np.asarray(np.isfinite(states).all(axis=1))

    def set(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.asarray(self._set_state(state), np.float64)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        observation, reward, terminated, _, _ = self._env.step(action)
        return np.asarray(observation, np.float64), float(reward), terminated


def find_family(name: str) -> TaskFamily[Any]:
    """The family of a name: of this project, of an installed package's entry point, or `my_package.my_module:FAMILY`.

    The module is imported, so the name has to come from the user's own configuration or command line, never from a
    data file. Raises `ConfigError` where there is no such family.
    """
    place = places().get(name, name)
    if not _PLACE.fullmatch(place):
        known = ", ".join(places())
        raise ConfigError(f"family {name!r}: expected {known} or a place such as my_package.my_module:FAMILY")
    return _load(place)


@functools.cache
def places() -> dict[str, str]:
    """Name -> place of the families that are known: this project's and those of installed packages."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {entry.name: entry.value for entry in found} | BUILT_IN


def is_installed(name: str) -> bool:
    """Whether a name stands for a family of this project or of an installed package, so that any file may name it."""
    return name in places()


@functools.cache
def _load(place: str) -> TaskFamily[Any]:
    module, constant = place.split(":")
    try:
        found = getattr(importlib.import_module(module), constant)
    except Exception as error:  # a module of the user's may raise whatever it wants
        raise ConfigError(f"family {place!r}: cannot be imported, {_told(error)}") from error
    if not isinstance(found, TaskFamily):
        raise ConfigError(f"family {place!r}: is a {type(found).__name__}, expected an instance of a TaskFamily")
    return found


def _told(error: Exception) -> str:
    """The error in a line, with where it was raised unless that was the import itself."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    by_import = "importlib" in frame.filename or frame.filename == __file__
    return f"{type(error).__name__}{'' if by_import else f' in {frame.filename}:{frame.lineno}'}: {one_line(error)}"


def family_of(tasks: Sequence[Task] | Task) -> TaskFamily[Any]:
    """The family of a task, or of tasks of one family."""
    first = tasks if isinstance(tasks, Task) else tasks[0]
    return find_family(first.family)
