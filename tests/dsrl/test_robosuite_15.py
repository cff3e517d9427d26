"""The environments of robosuite 1.5, held to traces that `record_traces_15.py` recorded with it."""

import shutil
from functools import cache
from pathlib import Path

import h5py
import mujoco
import numpy as np
import pytest

from dsrl import train_bc
from dsrl.collect_demos import DemoConfig, collect
from dsrl.diffusion_policy import DiffusionPolicy
from dsrl.inspect_data import describe
from dsrl.rollout import open_environments, run_episodes
from envs.robomimic.arguments import TASK_SERIES
from envs.robomimic.env import RobomimicEnv
from envs.robomimic.task import POLICY_KEYS, RobomimicTask, task_names
from runtime.errors import DataError
from tests.dsrl.conftest import ROOT, call

TRACES = {path.stem: path for path in sorted((Path(__file__).parent / "traces_15").glob("*.npz"))}
KEYS = (*POLICY_KEYS, "robot0_eef_quat_site")
SHIFTS = (1e-15, 1e-14, -1e-14, 1e-13, -1e-13)  # rad in each joint


class Replay:
    """A trace, and an environment of its arguments that is put into its states."""

    def __init__(self, path):
        with np.load(path) as archive:
            self.trace = dict(archive)
        task = RobomimicTask.from_env_args(str(self.trace["env_args"]), path.name)
        self.env = RobomimicEnv(task, keys=KEYS, horizon=10**6)
        self.nq = self.env.model.nq

    def __len__(self):
        return len(self.trace["actions"])

    def start(self, shift=0.0):
        self.env.reset(seed=int(self.trace["seed"]))
        self.first_mass = self.env.controller.first_mass.copy()
        self.env.data.qpos[:7] += shift
        mujoco.mj_kinematics(self.env.model, self.env.data)

    def step(self, k):
        self.env.step(self.trace["actions"][k])
        return self.env.data.qpos.copy()

    def step_from_the_record(self, k, shift=0.0):
        env, trace = self.env, self.trace
        state, warmstart, gripper = (
            (trace["start"], trace["start_warmstart"], np.zeros(2))
            if k == 0
            else (trace["states"][k - 1], trace["warmstart"][k - 1], trace["gripper"][k - 1])
        )
        env.data.qpos[:], env.data.qvel[:] = state[1 : 1 + self.nq], state[1 + self.nq :]
        env.data.qpos[:7] += shift
        env.data.qacc_warmstart[:] = warmstart
        mujoco.mj_kinematics(env.model, env.data)
        env.controller.reset(self.first_mass if k == 0 else None)
        env.controller.gripper_command[:] = gripper
        env.controller.rest_pose[:] = trace["start"][1:8]
        return self.step(k)

    def recorded(self, k):
        return self.trace["states"][k][1 : 1 + self.nq]


@cache
def replay(name):
    return Replay(TRACES[name])


def test_there_is_a_trace_of_every_task_being_solved():
    solved = {name.split("_")[0] for name in TRACES if replay(name).trace["success"].any()}
    assert solved == {name for name in task_names() if name not in TASK_SERIES}


@pytest.mark.parametrize("name", TRACES)
def test_starts_and_first_observations_are_those_of_robosuite_15(name):
    each = replay(name)
    each.start()
    np.testing.assert_array_equal(each.env.state(), each.trace["start"])
    np.testing.assert_allclose(each.env.observation(), each.trace["live_obs"][0], atol=2e-7)


@pytest.mark.parametrize("name", TRACES)
def test_every_control_step_is_that_of_robosuite_15(name):
    """To 1e-11 from the recorded state; where contact makes it chaotic, as near as a shift of 1e-13 rad leaves it."""
    each, chaotic = replay(name), 0
    each.start()
    for k in range(len(each)):
        ours = each.step_from_the_record(k)
        error = np.abs(ours - each.recorded(k)).max()
        if error > 1e-11:
            chaotic += 1
            shifted = [np.abs(each.step_from_the_record(k, shift) - ours).max() for shift in SHIFTS]
            assert error < 10 * max(shifted) and error < 1e-4, f"step {k}: {error:.1e}, shifted {max(shifted):.1e}"
    assert chaotic <= 0.15 * len(each)


@pytest.mark.parametrize("name", TRACES)
def test_a_whole_episode_is_that_of_robosuite_15_while_chaos_allows(name):
    """Positions, observations as the data files have them, commands of the fingers and success."""
    each = replay(name)

    def episode(shift):
        each.start(shift)
        rows = []
        for k in range(len(each)):
            rows.append((each.step(k), each.env.observation(), each.env.controller.gripper_command[0].copy()))
        return [np.stack(column) for column in zip(*rows, strict=True)]

    ours, seen, gripper = episode(0.0)
    apart = np.max([np.abs(episode(shift)[0] - ours).max(axis=1) for shift in (1e-13, -1e-13, 2e-13)], axis=0) > 1e-7
    until = int(apart.argmax()) if apart.any() else len(apart)
    assert until >= 40
    theirs = each.trace["states"][:, 1 : 1 + each.nq]
    np.testing.assert_allclose(ours[:until], theirs[:until], atol=1e-9)
    np.testing.assert_allclose(seen[:until], each.trace["file_obs"][1 : until + 1], atol=5e-7)
    np.testing.assert_array_equal(gripper, each.trace["gripper"])
    each.start()
    solved = []
    for k in range(len(each)):
        each.step(k)
        solved.append(each.env.solved())
    np.testing.assert_array_equal(solved, each.trace["success"])


def test_what_robosuite_15_does_otherwise_is_seen():
    """The same actions in an environment of 1.4: other motion where the hand is not to turn, other observations."""
    actions = replay("lift_expert").trace["actions"]
    ends = []
    for series in ("1.4", "1.5"):
        env = RobomimicEnv(RobomimicTask.standard("lift", series))
        observation, _ = env.reset(seed=7)
        for action in actions[:20]:
            env.step(action)
        ends.append((observation, env.state()))
    (first_14, end_14), (first_15, end_15) = ends
    np.testing.assert_allclose(first_14[-3:], -first_15[-3:], atol=1e-7)
    assert np.abs(end_14 - end_15).max() > 1e-4


def test_a_relative_pose_comes_first_and_a_step_late():
    """In Can and Square, and is zero at an episode's first observation: so it is in robosuite 1.5's own."""
    each = replay("can_expert")
    each.start()
    before = each.env.observer["object"]()
    assert not before[:7].any()
    for k in range(2):
        pose = np.concatenate([each.env.data.body("Can_main").xpos, each.env.data.body("Can_main").xquat])
        each.step(k)
        np.testing.assert_array_equal(each.env.observer.memory, pose)
    assert each.env.task.observation_dims["robot0_eef_quat_site"] == 4
    assert "robot0_eef_vel_lin" not in each.env.task.observation_dims


def test_lite_physics_and_the_base_as_frame_change_nothing():
    one = RobomimicTask.standard("can", "1.5")
    changed = one.env_args.replace('"lite_physics": false', '"lite_physics": true').replace('"world"', '"base"')
    assert changed != one.env_args
    assert RobomimicTask.from_env_args(changed, "x").arguments == one.arguments


def test_todays_files_are_looked_into_trained_on_and_evaluated(tmp_path):
    """A recorded one with the arguments of the published `low_dim_v15.hdf5`."""
    path = tmp_path / "low_dim_v15.hdf5"
    collect(RobomimicTask.standard("can", "1.5"), DemoConfig(num_demos=2), path)
    assert "can be cloned: can, as of robosuite 1.5" in describe(path)
    _relabelled_is_seen(path, "can", "1.4")
    with h5py.File(path) as file:
        seen = file["data/demo_1/obs/object"][:]
    assert not seen[0, :7].any() and np.abs(seen[1:, 7:10] - seen[0, 7:10]).max() > 0.1, "the can's own pose is last"
    flags = {"data_path": str(path), "save_dir": str(tmp_path / "bc"), "config": ROOT / "config/dsrl/demo_bc.yaml"}
    call(train_bc.main, task="can", epochs=2, save_every=2, relative_quaternion="six", device="cpu", **flags)
    policy = DiffusionPolicy.load(tmp_path / "bc/state_2.pt", ddim_steps=2)
    assert policy.task == RobomimicTask.standard("can", "1.5")
    with open_environments(policy, 2, horizon=8) as environments:
        assert environments.reset([1, 2]).shape == (2, 23)
        assert len(run_episodes(policy, environments, [1, 2]).rows()) == 2


def _relabelled_is_seen(path, task, series):
    """Only the arguments are changed to those of another version."""
    other = path.with_name("relabelled.hdf5")
    shutil.copy(path, other)
    with h5py.File(other, "r+") as file:
        file["data"].attrs["env_args"] = RobomimicTask.standard(task, series).env_args
    own = "1.5" if series == "1.4" else "1.4"
    assert f"obs/object has its parts as robosuite {own} has them, but env_args are of {series}" in describe(other)
    return other


def test_arguments_of_a_version_that_the_observations_are_not_of_are_seen(demos, tmp_path):
    shutil.copy(demos, tmp_path / "low_dim.hdf5")
    other = _relabelled_is_seen(tmp_path / "low_dim.hdf5", "lift", "1.5")
    flags = {"data_path": str(other), "save_dir": str(tmp_path / "bc"), "config": ROOT / "config/dsrl/demo_bc.yaml"}
    with pytest.raises(DataError, match="expected both of one version"):
        call(train_bc.main, task="lift", epochs=1, save_every=1, **flags)
    call(train_bc.main, task="lift", epochs=1, save_every=1, env_check=False, device="cpu", **flags)
    assert DiffusionPolicy.load(tmp_path / "bc/state_1.pt").task == RobomimicTask.standard("lift")


def test_a_file_of_another_version_is_trained_on_when_asked_for_and_else_refused(demos, tmp_path):
    old = tmp_path / "low_dim.hdf5"
    shutil.copy(demos, old)
    with h5py.File(old, "r+") as file:
        file["data"].attrs["env_args"] = file["data"].attrs["env_args"].replace('"1.4.1"', '"1.2.0"')
    flags = {"data_path": str(old), "save_dir": str(tmp_path / "bc"), "config": ROOT / "config/dsrl/demo_bc.yaml"}
    with pytest.raises(DataError, match=r"env_version is '1.2.0', expected 1.4 or 1.5.*--no_env_check"):
        call(train_bc.main, task="lift", epochs=1, save_every=1, **flags)
    call(train_bc.main, task="lift", epochs=1, save_every=1, env_check=False, device="cpu", **flags)
    assert DiffusionPolicy.load(tmp_path / "bc/state_1.pt").task == RobomimicTask.standard("lift")
