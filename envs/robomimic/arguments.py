"""The arguments of a recorded robosuite environment (`env_args`): every key is honoured, as built here, or refused.

Two series of robosuite are read. Their models, starts and success rules of these tasks are the same; they differ in
the controller (`Law`) and in some observations (`envs.robomimic.observation`). A key that draws, records or ends
episodes has no effect here, as robomimic itself sets it anew; every other one must have the value that is built, or be
one that is honoured: `control_freq`, `initialization_noise`, `table_full_size`, `table_friction`, and of the controller
`kp`, `damping_ratio`, `output_min`, `output_max`, in 1.5 `input_ref_frame` and `lite_physics` too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.errors import DataError

SERIES = ("1.4", "1.5")
"""Versions of robosuite whose environments are built here."""

ENV_NAMES = {
    "lift": "Lift",
    "can": "PickPlaceCan",
    "square": "NutAssemblySquare",
    "tool_hang": "ToolHang",
    "transport": "TwoArmTransport",
}
TASK_SERIES = {"tool_hang": ("1.4",), "transport": ("1.4",)}
"""Versions that a task is built of; the others are of all."""

ROBOTS = {name: ["Panda", "Panda"] if name == "transport" else ["Panda"] for name in ENV_NAMES}

MODEL_TIMESTEP = 0.002  # s, robosuite's

_HONOURED_MODEL_KEYS = ("table_full_size", "table_friction", "initialization_noise")
_NOT_HONOURED = {"transport": ("table_full_size",)}
_WITHOUT_EFFECT = frozenset(
    (
        *("has_renderer", "has_offscreen_renderer", "renderer", "renderer_config", "render_camera"),
        *("render_gpu_device_id", "render_collision_mesh", "render_visual_mesh", "use_camera_obs", "use_object_obs"),
        *("camera_names", "camera_heights", "camera_widths", "camera_depths", "camera_segmentations"),
        *("horizon", "ignore_done"),
    )
)
_AS_BUILT: Mapping[str, tuple[Any, ...]] = {
    "reward_scale": (1.0,),
    "reward_shaping": (False,),
    "placement_initializer": (None,),
    "hard_reset": (True,),
}
_ONE_ARM: Mapping[str, tuple[Any, ...]] = {
    "robots": (["Panda"], "Panda"),
    "env_configuration": ("default",),
    "gripper_types": ("default", ["default"], "PandaGripper", ["PandaGripper"]),
}
_AS_BUILT_OF_TASK: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "lift": {},
    "tool_hang": {},
    "transport": {
        "tables_boundary": ([0.8, 1.2, 0.05],),
        "bin_size": ([0.3, 0.3, 0.15],),
        "env_configuration": ("single-arm-opposed", "default"),
        "robots": (["Panda", "Panda"],),
        "gripper_types": ("default", "PandaGripper", ["default"] * 2, ["PandaGripper"] * 2),
    },
    "can": {
        "bin1_pos": ([0.1, -0.25, 0.8],),
        "bin2_pos": ([0.1, 0.28, 0.8],),
        "z_offset": (0.0,),
        "z_rotation": (None,),
    },
    "square": {},
}
_LAW_AS_BUILT: Mapping[str, tuple[Any, ...]] = {
    "type": ("OSC_POSE",),
    "input_max": (1, [1] * 6),
    "input_min": (-1, [-1] * 6),
    "impedance_mode": ("fixed",),
    "uncouple_pos_ori": (True,),
    "control_delta": (True,),
    "position_limits": (None,),
    "orientation_limits": (None,),
    "interpolation": (None, "null"),
    "damping": (1,),  # robosuite reads `damping_ratio` and passes over this
}
_LAW_WITHOUT_EFFECT = frozenset(("kp_limits", "damping_limits", "damping_ratio_limits", "ramp_ratio"))
"""Bounds of gains that fixed gains do not meet, and the pace of an interpolation that is off."""


@dataclass(frozen=True)
class Law:
    """Constants of OSC_POSE: gains and scales of the six numbers, three of position (m) and three of rotation (rad).

    `keeps_orientation`: an action whose three rotations are exactly zero keeps the former goal (1.4); else it becomes
    the present orientation (1.5). `finger_steps`: what the fingers' command in [-1, 1] moves by in the first substep
    of a control step, and in each later one.
    """

    kp: tuple[float, ...] = (150.0,) * 6
    damping_ratio: tuple[float, ...] = (1.0,) * 6
    output_min: tuple[float, ...] = (-0.05, -0.05, -0.05, -0.5, -0.5, -0.5)
    output_max: tuple[float, ...] = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5)
    keeps_orientation: bool = True
    finger_steps: tuple[float, float] = (0.01, 0.01)


@dataclass(frozen=True)
class EnvArguments:
    """What `env_args` describe. `model` are keywords of robosuite's that shape its models and starts."""

    task: str
    series: str
    control_freq: float
    model: Mapping[str, Any]
    law: Law


def read_env_args(text: str | bytes, source: str) -> EnvArguments:
    """The arguments in the JSON `text` of the file or checkpoint `source`.

    Raises `DataError`, naming the key, for those that describe another environment than one that is built here.
    """
    try:
        values = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{source}: env_args are not JSON ({error}); expected those of a robosuite environment"
        ) from error
    top = _Keys(values, source, "env_args")
    env_name = top.take("env_name")
    tasks = {env: name for name, env in ENV_NAMES.items()}
    if env_name not in tasks:
        raise DataError(f"{source}: env_args name the environment {env_name!r}, expected one of {', '.join(tasks)}")
    task = tasks[env_name]
    version = top.take("env_version", None)
    top.expect("type", (1,))
    top.take("lang", None)
    keys = _Keys(top.take("env_kwargs"), source, "env_kwargs")
    top.finish()

    controller = _Keys(keys.take("controller_configs"), source, "controller_configs")
    series = _series(version, "body_parts" in controller.values, source)
    control_freq = keys.number("control_freq", 20, 1, 1 / MODEL_TIMESTEP)
    if series not in TASK_SERIES.get(task, SERIES):
        raise DataError(
            f"{source}: {env_name} of robosuite {series}, expected that of {' or '.join(TASK_SERIES[task])} "
            "(low_dim_v141.hdf5): the other is not built here"
        )
    for key, allowed in {**_AS_BUILT, **_ONE_ARM, **_AS_BUILT_OF_TASK[task]}.items():
        keys.expect(key, allowed)
    if series == "1.5":
        keys.expect("lite_physics", (True, False))
        keys.expect("seed", (None,))
    honoured = [key for key in _HONOURED_MODEL_KEYS if key not in _NOT_HONOURED.get(task, ())]
    model = {key: keys.take(key) for key in honoured if key in keys.values}
    for key, value in model.items():
        _check_model(keys, key, value)
    keys.finish(_WITHOUT_EFFECT)
    return EnvArguments(task, series, control_freq, model, _law(controller, series))


def _series(version: Any, composite: bool, source: str) -> str:
    """Files from before robosuite wrote its version are of the series whose form their controller has."""
    if version is None or version == "":
        return "1.5" if composite else "1.4"
    series = ".".join(str(version).split(".")[:2])
    if series not in SERIES:
        raise DataError(
            f"{source}: env_args.env_version is {version!r}, expected {' or '.join(SERIES)}, whose environments are "
            "built here; `--no_env_check` of dsrl.train_bc trains on the file for the environment of 1.4 nevertheless"
        )
    if composite and series == "1.4":
        raise DataError(
            f"{source}: controller_configs has body_parts, which are of robosuite 1.5, but env_version is {version!r}"
        )
    return series


def _law(controller: _Keys, series: str) -> Law:
    """Of 1.4's flat description or of the right arm of 1.5's composite one; 1.5 takes the flat form too."""
    composite = "body_parts" in controller.values
    if composite:
        controller.expect("type", ("BASIC",))
        controller.expect("composite_controller_specific_configs", ({},))
        parts = _Keys(controller.take("body_parts"), controller.source, "body_parts")
        controller.finish()
        controller = _Keys(parts.take("right"), controller.source, "body_parts.right")
        parts.finish()
    for key, allowed in _LAW_AS_BUILT.items():
        controller.expect(key, allowed, required=key == "type")
    if series == "1.5":
        controller.expect("input_type", ("delta",))
        controller.expect("input_ref_frame", ("base", "world"))  # the arm's base is not turned in these tasks
        if composite:
            gripper = _Keys(controller.take("gripper", {}), controller.source, f"{controller.where}.gripper")
            gripper.expect("type", ("GRIP",))
            gripper.expect("use_action_scaling", (True,))
            gripper.finish()
    kp, damping_ratio = (controller.numbers(key, getattr(Law, key), 6) for key in ("kp", "damping_ratio"))
    for key, value in (("kp", kp), ("damping_ratio", damping_ratio)):
        if min(value) < 0:
            controller.refuse(key, value, "numbers of at least 0")
    low, high = (controller.numbers(key, getattr(Law, key), 6) for key in ("output_min", "output_max"))
    controller.finish(_LAW_WITHOUT_EFFECT)
    if series == "1.5":
        return Law(kp, damping_ratio, low, high, keeps_orientation=False, finger_steps=(0.2, 0.0))
    return Law(kp, damping_ratio, low, high)


def _check_model(keys: _Keys, key: str, value: Any) -> None:
    if key == "initialization_noise":
        noise = value[0] if isinstance(value, list) and len(value) == 1 else value
        if noise is None or noise == "default":
            return
        right = isinstance(noise, Mapping) and set(noise) == {"magnitude", "type"}
        right = right and noise["type"] in ("gaussian", "uniform")
        if not right or not (noise["magnitude"] is None or _is_number(noise["magnitude"], 0.0)):
            keys.refuse(key, value, "'default', null or {magnitude: 0 or more, type: gaussian or uniform}")
    elif not (isinstance(value, list) and len(value) == 3 and all(_is_number(number, 0.0) for number in value)):
        keys.refuse(key, value, "three numbers of at least 0")


def _is_number(value: Any, least: float = -math.inf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < math.inf


class _Keys:
    """A mapping of the arguments that is read key by key, so that what nobody read can be refused at the end."""

    def __init__(self, values: Any, source: str, where: str) -> None:
        if not isinstance(values, Mapping):
            raise DataError(f"{source}: {where} is {_short(values)}, expected a mapping of a robosuite environment")
        self.values, self.source, self.where = dict(values), source, where

    def take(self, key: str, *default: Any) -> Any:
        if key not in self.values and not default:
            raise DataError(f"{self.source}: {self.where} has no {key}; expected those of a robosuite environment")
        return self.values.pop(key, *default)

    def expect(self, key: str, allowed: tuple[Any, ...], *, required: bool = False) -> None:
        value = self.take(key) if required else self.take(key, allowed[0])
        if value not in allowed:
            self.refuse(key, value, " or ".join(_short(each) for each in allowed))

    def number(self, key: str, default: float, least: float, most: float) -> float:
        value: float = self.take(key, default)
        if not _is_number(value, least) or value > most:
            self.refuse(key, value, f"a number from {least:g} to {most:g}")
        return value

    def numbers(self, key: str, default: tuple[float, ...], count: int) -> tuple[float, ...]:
        """One number for all, or one each."""
        value = self.take(key, list(default))
        value = [value] * count if _is_number(value) else value
        if not isinstance(value, list) or len(value) != count or not all(_is_number(number) for number in value):
            self.refuse(key, value, f"a number or {count}")
        return tuple(float(number) for number in value)

    def refuse(self, key: str, value: Any, expected: str) -> None:
        raise DataError(f"{self.source}: {self.where}.{key} is {_short(value)}, expected {expected}")

    def finish(self, without_effect: frozenset[str] = frozenset()) -> None:
        """Raises `DataError` for the first key that was not taken and is not among those without effect."""
        for key in sorted(set(self.values) - without_effect, key=str):
            raise DataError(f"{self.source}: {self.where}.{key} is {_short(self.values[key])}, which is not built here")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
