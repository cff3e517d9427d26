"""What a Robomimic task is: the environment that its data files describe in `env_args`, and its observations."""

from __future__ import annotations

import json
from dataclasses import dataclass

from envs.robomimic.arguments import ENV_NAMES, EnvArguments, read_env_args
from runtime.errors import TaskError

POLICY_KEYS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")
"""Observations of the low-dim policies, in their order."""

_PROPRIO_DIMS = {
    "robot0_eef_pos": 3,
    "robot0_eef_quat": 4,
    "robot0_gripper_qpos": 2,
    "robot0_gripper_qvel": 2,
    "robot0_joint_pos": 7,
    "robot0_joint_pos_cos": 7,
    "robot0_joint_pos_sin": 7,
    "robot0_joint_vel": 7,
}
_PROPRIO_DIMS_OF_SERIES = {
    "1.4": {"robot0_eef_vel_lin": 3, "robot0_eef_vel_ang": 3},
    "1.5": {"robot0_eef_quat_site": 4},
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
_OF_SERIES = {
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

_OBJECT_DIMS = {"lift": 10, "can": 14, "square": 14}


def task_names() -> tuple[str, ...]:
    return tuple(ENV_NAMES)


@dataclass(frozen=True)
class RobomimicTask:
    """A task by its short name, with the environment's arguments as the JSON text that data files hold.

    A value that can be compared, hashed and sent to worker processes.
    """

    name: str
    env_args: str

    policy_keys = POLICY_KEYS
    action_dim = ACTION_DIM

    @classmethod
    def standard(cls, name: str, series: str = "1.4") -> RobomimicTask:
        """The task as the published data sets of a series of robosuite have it.

        Raises `TaskError` for an unknown name.
        """
        if name not in ENV_NAMES:
            raise TaskError(f"task {name!r}: expected one of {', '.join(ENV_NAMES)}")
        robosuite, particular = _OF_SERIES[series]
        kwargs = {
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "ignore_done": True,
            "use_object_obs": True,
            "use_camera_obs": False,
            "control_freq": 20,
            **particular,
            "robots": ["Panda"],
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
        of_series = _PROPRIO_DIMS_OF_SERIES[self.arguments.series]
        return {**_PROPRIO_DIMS, **of_series, "object": _OBJECT_DIMS[self.name]}

    def observation_dim(self, keys: tuple[str, ...] = POLICY_KEYS) -> int:
        return sum(self.observation_dims[key] for key in keys)

    def __str__(self) -> str:
        return self.name
