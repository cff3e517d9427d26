"""Record what robosuite 1.5 does, for `test_robosuite_15.py`; needs an environment of its own:

    python -m venv venv15 && venv15/bin/pip install robosuite==1.5.1 mujoco==3.3.7 gymnasium
    MUJOCO_GL=disable venv15/bin/python -m tests.dsrl.record_traces_15

A trace has the start that numpy's seed draws, and for each control step the action and what came of it: states (time,
positions, velocities), commands, the fingers' command, the solver's warm start, whether the task is solved. `file_obs`
are observations as robomimic extracts them for data files, from one recorded state after the other; `live_obs` are what
`reset` and `step` returned.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np

from envs.robomimic.experts import EXPERTS
from envs.robomimic.task import RobomimicTask

TRACES = Path(__file__).parent / "traces_15"
OBJECTS = {"lift": "cube", "can": "Can", "square": "SquareNut"}
BASE = {"input_ref_frame": "base"}
# name: task, seed, steps, who acts, changes of env_kwargs, changes of the arm's controller
PLANS = {
    "lift_expert": ("lift", 7, 60, "expert", {}, {}),
    "can_expert": ("can", 8, 160, "expert", {}, {}),
    "square_expert": ("square", 9, 180, "expert", {}, {}),
    "lift_random_base_lite": ("lift", 3, 40, "random", {"lite_physics": True, "control_freq": 25}, BASE),
    "square_random_gains": (
        "square",
        4,
        40,
        "random",
        {"initialization_noise": None},
        {"kp": 80, "damping_ratio": 0.7},
    ),
}


def record(name: str) -> None:
    import mujoco
    import robosuite

    task, seed, steps, actor, kwargs, law = PLANS[name]
    arguments = json.loads(RobomimicTask.standard(task, "1.5").env_args)
    arguments["env_version"] = robosuite.__version__
    arguments["env_kwargs"].update(kwargs)
    arguments["env_kwargs"]["controller_configs"]["body_parts"]["right"].update(law)
    env = robosuite.make(arguments["env_name"], **copy.deepcopy(arguments["env_kwargs"]))
    np.random.seed(seed)  # noqa: NPY002
    seen = env.reset()
    data, gripper = env.sim.data._data, env.robots[0].gripper["right"]
    rng = np.random.default_rng(seed)
    start, start_warmstart = env.sim.get_state().flatten(), data.qacc_warmstart.copy()
    rows: dict[str, list] = {"live_obs": [_policy_obs(seen)]}
    for step in range(steps):
        action = rng.uniform(-1, 1, 7)
        if actor == "expert":
            thing = OBJECTS[task]
            parts = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", f"{thing}_pos", f"{thing}_quat")
            chosen = EXPERTS[task](np.concatenate([seen[part] for part in parts]))
            action = np.clip(chosen + 0.1 * action * (1, 1, 1, 1, 1, 1, 0), -1, 1)
        if step % 3 == 0:
            action[3:6] = 0  # the goal of the orientation is the present one
        if step % 7 == 0:
            action[6] = 0  # the fingers hold
        seen = env.step(action)[0]
        fields = {
            "actions": action,
            "states": env.sim.get_state().flatten(),
            "warmstart": data.qacc_warmstart,
            "ctrl": data.ctrl,
            "gripper": np.broadcast_to(gripper.current_action, 2),
            "success": env._check_success(),
            "live_obs": _policy_obs(seen),
        }
        for key, value in fields.items():
            rows.setdefault(key, []).append(np.array(value))
    rows["file_obs"] = []
    for state in [start, *rows["states"]]:
        env.sim.set_state_from_flattened(state)
        env.sim.forward()
        rows["file_obs"].append(_policy_obs(env._get_observations(force_update=True)))
    TRACES.mkdir(exist_ok=True)
    np.savez_compressed(
        TRACES / f"{name}.npz",
        env_args=json.dumps(arguments),
        made_with=f"robosuite {robosuite.__version__}, mujoco {mujoco.__version__}, numpy {np.__version__}",
        seed=seed,
        start=start,
        start_warmstart=start_warmstart,
        **{key: np.stack(values) for key, values in rows.items()},
    )
    print(f"{name}: {sum(rows['success'])} of {steps} steps solved")


def _policy_obs(seen: dict[str, np.ndarray]) -> np.ndarray:
    keys = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object-state", "robot0_eef_quat_site")
    return np.concatenate([seen[key] for key in keys])


if __name__ == "__main__":
    for plan in sys.argv[1:] or PLANS:
        record(plan)
