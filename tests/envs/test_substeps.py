"""The compiled substeps against the same controller written with MuJoCo's bindings and numpy."""

import mujoco
import numpy as np
import pytest

import envs
from envs.composuite.simulation import SUBSTEPS


def plain_step(simulation, data, gripper_state, action):
    """One control step in Python; the mass matrix is always the state's own."""
    model = simulation.model
    goal = data.qpos[:7] + 0.05 * np.clip(action[:7], -1, 1)
    limit = model.actuator_ctrlrange[:7, 1]
    low, high = model.actuator_ctrlrange[7:9].T
    full = np.zeros((model.nv, model.nv))
    for _ in range(SUBSTEPS):
        mujoco.mj_step1(model, data)
        mujoco.mj_fullM(model, full, data.qM)
        torque = full[:7, :7] @ (50 * (goal - data.qpos[:7]) - 2 * np.sqrt(50) * data.qvel[:7]) + data.qfrc_bias[:7]
        data.ctrl[:7] = np.clip(torque, -limit, limit)
        gripper_state += 0.01 * np.sign(action[7]) * np.array([1.0, -1.0])
        np.clip(gripper_state, -1, 1, out=gripper_state)
        data.ctrl[7:9] = (low + high) / 2 + (high - low) / 2 * gripper_state
        mujoco.mj_step2(model, data)


@pytest.mark.parametrize("name", ["IIWA_Box_None_Push", "Jaco_Plate_ObjectDoor_Shelf", "Panda_Dumbbell_GoalWall_Push"])
def test_compiled_substeps_equal_the_plain_controller(name):
    env = envs.make(name, ignore_done=True)
    env.reset(seed=3)
    simulation = env.simulation
    simulation.reset_to(simulation.data.qpos.copy(), simulation.data.qvel.copy())
    plain, gripper = mujoco.MjData(simulation.model), np.zeros(2)
    plain.qpos[:], plain.qvel[:] = simulation.data.qpos, simulation.data.qvel
    mujoco.mj_forward(simulation.model, plain)
    plain.qacc_warmstart[:] = simulation.data.qacc_warmstart
    for action in np.random.default_rng(0).uniform(-1.5, 1.5, (20, 8)):
        simulation.step(action)
        plain_step(simulation, plain, gripper, action)
        np.testing.assert_allclose(simulation.data.qpos, plain.qpos, rtol=0, atol=1e-9)
        np.testing.assert_allclose(simulation.data.ctrl, plain.ctrl, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(simulation.gripper_state, gripper)
