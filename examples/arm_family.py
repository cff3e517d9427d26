"""A family on real physics, as a lab would write it for its own robot: a planar arm that carries a load to a target.

Two arms x two payloads x three targets x two disturbances make 24 tasks on plain MuJoCo. docs/your_robot.md goes
through this file part by part.

Example: python -m scripts.automated_iterative_diffusion_dits_iiwa --config examples/arm_family.yaml
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

from envs.family import Expert, TaskFamily
from offline_compositional_rl_datasets.layout import Factor, FactoredLayout
from offline_compositional_rl_datasets.task import Task

# 1. The axes and their elements.
LINKS = {"even": (0.3, 0.3), "long": (0.4, 0.25)}  # lengths of upper and lower arm (m)
PAYLOADS = {"empty": 0.05, "loaded": 0.5}  # at the tip (kg)
TARGETS = {"left": (-0.3, 0.3), "ahead": (0.05, 0.5), "right": (0.4, 0.2)}  # of the tip (m)
DISTURBANCES = {"calm": (0.0, 0.0), "wind": (-1.0, -0.5)}  # force on the tip (N)
AXES = {"links": tuple(LINKS), "payload": tuple(PAYLOADS), "target": tuple(TARGETS), "disturbance": tuple(DISTURBANCES)}

TORQUE = 2.0  # of a joint at an action of 1 (Nm)
SUBSTEPS = 10  # of 5 ms, so that there are 20 control steps per second
NEAR, SLOW = 0.05, 0.3  # the target is reached within so far (m), slower than that (m/s)

# 2. What the state says, factor by factor: each is labelled by the axis that shapes it.
LAYOUT = FactoredLayout(
    factors=(
        Factor("arm", 8, "links"),  # cosines, sines and velocities of both joints, position of the tip
        Factor("load", 3, "payload"),  # mass, velocity of the tip
        Factor("goal", 4, "target"),  # where it is, and the way there
        Factor("force", 2, "disturbance"),
    ),
    action_dim=2,
    axes=tuple(AXES.items()),
    ids_after="force",
    velocities=(slice(4, 6), slice(9, 11)),
    angles=((slice(0, 2), slice(2, 4)),),
)


@dataclass(frozen=True, order=True)
class ArmTask(Task):
    """An arm, what it carries, where to and against what, e.g. `even_loaded_left_wind`."""

    links: str
    payload: str
    target: str
    disturbance: str

    layout = LAYOUT


# 3. The simulator: any gymnasium environment that observes the state and says when it succeeded.
MODEL = """
<mujoco>
  <option timestep="0.005" gravity="0 0 0" integrator="implicitfast"/>
  <default>
    <joint axis="0 0 1" damping="0.3" armature="0.08"/>
    <geom type="capsule" size="0.02" density="300" contype="0" conaffinity="0"/>
  </default>
  <worldbody>
    <light pos="0 0 2"/><camera name="top" pos="0 0.2 1.4"/>
    <geom name="target" type="cylinder" size="0.05 0.002" pos="{goal[0]} {goal[1]} 0" rgba="0.1 0.6 0.3 1"/>
    <body><joint name="shoulder"/><geom fromto="0 0 0 {upper} 0 0"/>
      <body pos="{upper} 0 0"><joint name="elbow"/><geom fromto="0 0 0 {lower} 0 0"/>
        <body name="tip" pos="{lower} 0 0"><geom type="sphere" size="0.03" mass="{mass}"/></body>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="shoulder" gear="{torque}"/><motor joint="elbow" gear="{torque}"/></actuator>
</mujoco>
"""


class ArmEnv(gymnasium.Env):
    """State (17,) as in `LAYOUT`; action (2,) in [-1, 1], torques; reward exp(-5 distance)."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - gymnasium's own form
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (17,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, task: ArmTask, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._renderer: mujoco.Renderer | None = None
        upper, lower = LINKS[task.links]
        self.mass, self.goal = PAYLOADS[task.payload], np.array(TARGETS[task.target])
        self.force = np.array(DISTURBANCES[task.disturbance])
        text = MODEL.format(upper=upper, lower=lower, mass=self.mass, goal=self.goal, torque=TORQUE)
        self.model = mujoco.MjModel.from_xml_string(text)
        self.data = mujoco.MjData(self.model)
        self._tip = self.model.body("tip").id

    def _observe(self) -> np.ndarray:
        joints, tip = self.data.qpos, self.data.xpos[self._tip, :2]
        arm = [*np.cos(joints), *np.sin(joints), *self.data.qvel, *tip]
        return np.array([*arm, self.mass, *self._tip_velocity(), *self.goal, *(self.goal - tip), *self.force])

    def _tip_velocity(self) -> np.ndarray:
        jacobian = np.zeros((3, 2))
        mujoco.mj_jacBody(self.model, self.data, jacobian, None, self._tip)
        return np.asarray((jacobian @ self.data.qvel)[:2])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = self.np_random.uniform((0.6, 0.4), (2.2, 2.0))
        mujoco.mj_forward(self.model, self.data)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.data.ctrl[:] = np.clip(action, -1, 1)
        self.data.xfrc_applied[self._tip, :2] = self.force
        mujoco.mj_step(self.model, self.data, SUBSTEPS)
        mujoco.mj_forward(self.model, self.data)  # positions of the tip belong to the joints' new ones
        distance = float(np.linalg.norm(self.goal - self.data.xpos[self._tip, :2]))
        success = distance < NEAR and float(np.linalg.norm(self._tip_velocity())) < SLOW
        return self._observe(), float(np.exp(-5 * distance)), False, False, {"success": success}

    def set_state(self, state: np.ndarray) -> np.ndarray:
        """Optional, for grounding and the physics check: go into a state (17,), return what is observed there."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = np.arctan2(state[2:4], state[0:2]), state[4:6]
        mujoco.mj_forward(self.model, self.data)
        return self._observe()

    def render(self) -> np.ndarray:
        """Optional, for pictures: (height, width, 3) uint8."""
        self._renderer = self._renderer or mujoco.Renderer(self.model, 256, 256)
        self._renderer.update_scene(self.data, camera="top")
        return np.asarray(self._renderer.render())


# 4. An expert, if there is one: the loop records it where data are missing.
class ArmExpert:
    """Joint angles that put the tip on the target, held by a spring and a damper against the force."""

    def __init__(self, task: ArmTask) -> None:
        upper, lower = LINKS[task.links]
        (x, y), self.force, self.lengths = (
            TARGETS[task.target],
            np.array(DISTURBANCES[task.disturbance]),
            (upper, lower),
        )
        elbow = np.arccos((x * x + y * y - upper**2 - lower**2) / (2 * upper * lower))
        shoulder = np.arctan2(y, x) - np.arctan2(lower * np.sin(elbow), upper + lower * np.cos(elbow))
        self.wanted = np.array([shoulder, elbow])

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """States (B, 17) to actions (B, 2) in [-1, 1]."""
        joints = np.arctan2(states[:, 2:4], states[:, 0:2])
        first, both = joints[:, 0], joints.sum(axis=1)
        (upper, lower), (fx, fy) = self.lengths, self.force
        reach = lower * (np.cos(both) * fy - np.sin(both) * fx)  # the force's torque about the elbow
        pushed = np.stack([upper * (np.cos(first) * fy - np.sin(first) * fx) + reach, reach], axis=1)
        turn = (self.wanted - joints + np.pi) % (2 * np.pi) - np.pi
        return np.asarray(np.clip((3.0 * turn - 0.8 * states[:, 4:6] - pushed) / TORQUE, -1, 1))


# 5. The family: what the configuration names.
class ArmFamily(TaskFamily[ArmTask]):
    """A planar arm of two links."""

    name = "arm"
    task_class = ArmTask

    def make_env(self, task: ArmTask, render_mode: str | None = None) -> gymnasium.Env:
        return ArmEnv(task, render_mode)

    def expert(self, task: ArmTask, policy: Path | None = None) -> Expert:
        return ArmExpert(task)


FAMILY = ArmFamily()
