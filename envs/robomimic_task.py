"""What a Robomimic task is: the environment that its data files describe in `env_args`, and its observations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from runtime.errors import DataError, TaskError

POLICY_KEYS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")
"""Observations of the low-dim policies, in their order."""

PROPRIO_DIMS = {
    "robot0_eef_pos": 3,
    "robot0_eef_quat": 4,
    "robot0_eef_vel_lin": 3,
    "robot0_eef_vel_ang": 3,
    "robot0_gripper_qpos": 2,
    "robot0_gripper_qvel": 2,
    "robot0_joint_pos": 7,
    "robot0_joint_pos_cos": 7,
    "robot0_joint_pos_sin": 7,
    "robot0_joint_vel": 7,
}

ACTION_DIM = 7
"""Change of the hand's position (3) and orientation (3, axis-angle), then the gripper, of which only the sign acts."""

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

_ENV_NAMES = {"lift": "Lift", "can": "PickPlaceCan", "square": "NutAssemblySquare"}
_OBJECT_DIMS = {"lift": 10, "can": 14, "square": 14}
_NEEDED = {"control_delta": True, "impedance_mode": "fixed", "interpolation": None, "position_limits": None}


def task_names() -> tuple[str, ...]:
    return tuple(_ENV_NAMES)


@dataclass(frozen=True)
class RobomimicTask:
    """A task by its short name, with the environment's arguments as the JSON text that data files hold.

    A value that can be compared, hashed and sent to worker processes.
    """

    name: str
    env_args: str

    @classmethod
    def standard(cls, name: str) -> RobomimicTask:
        """The task as the published data sets have it. Raises `TaskError` for an unknown name."""
        if name not in _ENV_NAMES:
            raise TaskError(f"task {name!r}: expected one of {', '.join(_ENV_NAMES)}")
        kwargs = {
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "ignore_done": True,
            "use_object_obs": True,
            "use_camera_obs": False,
            "control_freq": 20,
            "controller_configs": _OSC_POSE,
            "robots": ["Panda"],
            "camera_depths": False,
            "camera_heights": 84,
            "camera_widths": 84,
            "reward_shaping": False,
        }
        arguments = {
            "env_name": _ENV_NAMES[name],
            "env_version": version("robosuite"),
            "type": 1,
            "env_kwargs": kwargs,
        }
        return cls(name, json.dumps(arguments))

    @classmethod
    def from_env_args(cls, text: str, source: str) -> RobomimicTask:
        """The task of a data file or checkpoint called `source`.

        Raises `DataError` for arguments that the installed simulator would read otherwise than the recording one, or
        that describe another kind of environment.
        """
        try:
            arguments = json.loads(text)
            env_name, kwargs = arguments["env_name"], arguments["env_kwargs"]
            controller = kwargs["controller_configs"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{source}: env_args are not those of a robosuite environment ({error!r})") from error
        names = {env: name for name, env in _ENV_NAMES.items()}
        if env_name not in names:
            raise DataError(f"{source}: env_args name the environment {env_name!r}, expected one of {', '.join(names)}")
        _check_version(arguments.get("env_version"), source)
        if "body_parts" in controller or not isinstance(controller, Mapping):
            raise DataError(f"{source}: controller of robosuite 1.5, expected the OSC_POSE of robosuite 1.4")
        _check_controller(controller, kwargs, source)
        return cls(names[env_name], text)

    @property
    def env_name(self) -> str:
        return json.loads(self.env_args)["env_name"]

    @property
    def env_kwargs(self) -> dict[str, Any]:
        return json.loads(self.env_args)["env_kwargs"]

    @property
    def observation_dims(self) -> dict[str, int]:
        """Width of each observation by its key."""
        return {**PROPRIO_DIMS, "object": _OBJECT_DIMS[self.name]}

    def observation_dim(self, keys: tuple[str, ...] = POLICY_KEYS) -> int:
        return sum(self.observation_dims[key] for key in keys)

    def __str__(self) -> str:
        return self.name


def _check_version(recorded: str | None, source: str) -> None:
    """Files from before robosuite wrote its version are let through: there is nothing to compare."""
    installed = version("robosuite")
    if recorded and recorded.split(".")[:2] != installed.split(".")[:2]:
        raise DataError(
            f"{source}: made with robosuite {recorded}, installed is {installed}, whose controllers and models differ; "
            f"use a file made with {'.'.join(installed.split('.')[:2])} (low_dim_v141) or install robosuite=={recorded}"
        )


def _check_controller(controller: Mapping[str, Any], kwargs: Mapping[str, Any], source: str) -> None:
    if controller.get("type") != "OSC_POSE":
        raise DataError(f"{source}: controller {controller.get('type')!r}, expected 'OSC_POSE'")
    for key, value in _NEEDED.items():
        if controller.get(key, value) != value:
            raise DataError(f"{source}: controller_configs.{key} is {controller[key]!r}, expected {value!r}")
    if kwargs.get("robots") not in (["Panda"], "Panda"):
        raise DataError(f"{source}: robots {kwargs.get('robots')!r}, expected ['Panda']")
