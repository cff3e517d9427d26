"""What a Robomimic task is: the environment that its data files describe in `env_args`, and its observations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from envs.robomimic.arguments import ENV_NAMES, ROBOTS, TASK_SERIES, EnvArguments, read_env_args
from runtime.errors import TaskError

POLICY_KEYS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")
"""Observations of the low-dim policies of one arm, in their order."""

_PROPRIO_DIMS = {
    "eef_pos": 3,
    "eef_quat": 4,
    "gripper_qpos": 2,
    "gripper_qvel": 2,
    "joint_pos": 7,
    "joint_pos_cos": 7,
    "joint_pos_sin": 7,
    "joint_vel": 7,
}
_PROPRIO_DIMS_OF_SERIES = {"1.4": {"eef_vel_lin": 3, "eef_vel_ang": 3}, "1.5": {"eef_quat_site": 4}}

ACTION_DIM = 7
"""Of one arm: change of the hand's position (3) and orientation (3, axis-angle), then the gripper, of which only the
sign acts."""

_OSC_POSE = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 150,
    "damping": 1,
    "impedance_mode": "fixed",
    "kp_limits": [0, 300],
    "damping_limits": [0, 10],
    "position_limits": None,
    "orientation_limits": None,
    "uncouple_pos_ori": True,
    "control_delta": True,
    "interpolation": None,
    "ramp_ratio": 0.2,
}
_OF_SERIES: dict[str, tuple[str, dict[str, Any]]] = {
    "1.4": ("1.4.1", {"controller_configs": _OSC_POSE}),
    "1.5": (
        "1.5.1",
        {
            "controller_configs": {
                "type": "BASIC",
                "body_parts": {"right": {**_OSC_POSE, "input_ref_frame": "world", "gripper": {"type": "GRIP"}}},
            },
            "lite_physics": False,
        },
    ),
}
"""Version and what is particular in `env_kwargs` of the published data sets."""

_OBJECT_DIMS = {"lift": 10, "can": 14, "square": 14, "tool_hang": 44, "transport": 41}

HORIZONS = {"lift": 400, "can": 400, "square": 400, "tool_hang": 700, "transport": 700}
"""Control steps within which robomimic wants a task solved (of proficient humans' data)."""


def task_names() -> tuple[str, ...]:
    return tuple(ENV_NAMES)


@dataclass(frozen=True)
class RobomimicTask:
    """A task by its short name, with the environment's arguments as the JSON text that data files hold.

    A value that can be compared, hashed and sent to worker processes.
    """

    name: str
    env_args: str

    @classmethod
    def standard(cls, name: str, series: str = "1.4") -> RobomimicTask:
        """The task as the published data sets of a series of robosuite have it.

        Raises `TaskError` for an unknown name.
        """
        if name not in ENV_NAMES:
            raise TaskError(f"task {name!r}: expected one of {', '.join(ENV_NAMES)}")
        robosuite, particular = _OF_SERIES[series]
        if series not in TASK_SERIES.get(name, _OF_SERIES):
            raise TaskError(f"task {name!r} of robosuite {series}: built of {' and '.join(TASK_SERIES[name])} alone")
        kwargs = {
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "ignore_done": True,
            "use_object_obs": True,
            "use_camera_obs": False,
            "control_freq": 20,
            **particular,
            "robots": ROBOTS[name],
            **({"env_configuration": "single-arm-opposed"} if name == "transport" else {}),
            "camera_depths": False,
            "camera_heights": 84,
            "camera_widths": 84,
            "reward_shaping": False,
        }
        arguments = {
            "env_name": ENV_NAMES[name],
            "env_version": robosuite,
            "type": 1,
            "env_kwargs": kwargs,
        }
        return cls(name, json.dumps(arguments))

    @classmethod
    def from_env_args(cls, text: str, source: str) -> RobomimicTask:
        """The task of a data file or checkpoint called `source`.

        Raises `DataError` for arguments that describe another environment than one that is built here.
        """
        return cls(read_env_args(text, source).task, text)

    @property
    def arguments(self) -> EnvArguments:
        """What the text describes, read anew."""
        return read_env_args(self.env_args, self.name)

    @property
    def observation_dims(self) -> dict[str, int]:
        """Width of each observation by its key."""
        own = {**_PROPRIO_DIMS, **_PROPRIO_DIMS_OF_SERIES[self.arguments.series]}
        arms = {f"robot{i}_{key}": dim for i in range(self.arms) for key, dim in own.items()}
        return {**arms, "object": _OBJECT_DIMS[self.name]}

    @property
    def arms(self) -> int:
        return len(ROBOTS[self.name])

    @property
    def policy_keys(self) -> tuple[str, ...]:
        """Observations of the low-dim policies, in their order."""
        own = POLICY_KEYS[:-1]
        return (*(key.replace("robot0", f"robot{i}") for i in range(self.arms) for key in own), POLICY_KEYS[-1])

    @property
    def action_dim(self) -> int:
        """7 numbers for each arm."""
        return ACTION_DIM * self.arms

    @property
    def horizon(self) -> int:
        """Control steps of an episode, as robomimic has it."""
        return HORIZONS[self.name]

    def observation_dim(self, keys: tuple[str, ...] | None = None) -> int:
        return sum(self.observation_dims[key] for key in keys or self.policy_keys)

    def __str__(self) -> str:
        return self.name
