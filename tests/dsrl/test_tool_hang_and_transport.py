"""ToolHang and Transport of robosuite 1.4: flags and success, two arms, hammers that differ, cloning. What they share
with the other tasks (starts, motion, observations) is in `test_envs.py`."""

import json

import h5py
import mujoco
import numpy as np
import pytest

from dsrl import collect_demos, evaluate, train_bc, train_dsrl
from dsrl.config import DiffusionBCConfig
from dsrl.demos import Demonstration, write_demonstrations
from dsrl.normalizer import feature_columns
from envs.robomimic.env import RobomimicEnv
from envs.robomimic.scene import global_random_state, import_robosuite
from envs.robomimic.task import RobomimicTask
from runtime.atomic import read_json
from runtime.errors import ConfigError, DataError, TaskError
from tests.dsrl.conftest import call

NAMES = ("tool_hang", "transport")


def _original(task, seed):
    arguments = json.loads(task.env_args)
    original = import_robosuite().make(arguments["env_name"], **arguments["env_kwargs"])
    with global_random_state(seed):
        original.reset()
    return original


def _place(data, model, body, position, quaternion=(1, 0, 0, 0)):
    start = model.jnt_qposadr[model.body_jntadr[model.body(body).id]]
    data.qpos[start : start + 7] = (*position, *quaternion)


def _frame_in_stand(env, random):
    """The frame upright in the stand's hole, roughly, and the tool with its hole about the hook."""
    model, data, original = env.model, env.data, env.scene.robosuite
    mujoco.mj_kinematics(model, data)
    hole = np.mean([data.geom_xpos[model.geom(f"stand_wall{i}").id] for i in range(4)], axis=0)
    bottom = np.array([*hole[:2], data.geom_xpos[model.geom("stand_base").id][2] + 0.01])
    _place(data, model, original.frame.root_body, (0, 0, 0))
    mujoco.mj_kinematics(model, data)
    tip = data.site_xpos[model.site("frame_tip_site").id]
    _place(data, model, original.frame.root_body, bottom - tip + random.normal(size=3) * 0.004)
    mujoco.mj_kinematics(model, data)
    hang, corner = (data.site_xpos[model.site(f"frame_{name}_site").id].copy() for name in ("hang", "intersection"))
    along = corner - hang
    turn = np.zeros(4)
    # The hole's axis is the tool's z axis: it is turned into the hook's direction.
    mujoco.mju_mat2Quat(turn, _frame_of(along / np.linalg.norm(along)).ravel())
    _place(data, model, original.tool.root_body, (0, 0, 0), turn)
    mujoco.mj_kinematics(model, data)
    hole = data.site_xpos[model.site("tool_hole1_center").id].copy()
    at = hang + along * random.uniform(-0.1, 0.6)
    _place(data, model, original.tool.root_body, at - hole + random.normal(size=3) * 0.006, turn)


def _frame_of(z):
    x = np.cross([0.3, 1, 0.2], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _things_in_bins(env, random):
    """Payload and trash about the bottoms of their bins."""
    model, data, group = env.model, env.data, env.scene.robosuite.transport
    for thing, bin_ in ((group.payload, group.target_bin), (group.trash, group.trash_bin)):
        bottom = data.geom_xpos[model.geom(bin_.base_geoms[0]).id]
        lifted = random.uniform(0.0, 0.06)
        turn = random.normal(size=4)
        place = bottom + np.append(random.normal(size=2) * 0.03, lifted)
        _place(data, model, thing.root_body, place, turn / np.linalg.norm(turn))


@pytest.mark.parametrize(("name", "arrange"), [("tool_hang", _frame_in_stand), ("transport", _things_in_bins)])
def test_flags_and_success_are_what_robosuite_says(name, arrange):
    """At states around the goal, put into both: each flag is true in some and false in others, and so is success."""
    env = RobomimicEnv(name)
    env.reset(seed=4)
    original = _original(env.task, 4)
    random, rows = np.random.default_rng(0), []
    for _ in range(150):
        mujoco.mj_kinematics(env.model, env.data)
        arrange(env, random)
        mujoco.mj_kinematics(env.model, env.data)
        original.sim.data._data.qpos[:] = env.data.qpos
        original.sim.forward()
        seen = original._get_observations(force_update=True)
        np.testing.assert_allclose(env.observer["object"](), seen["object-state"], atol=5e-6)
        assert env.solved() == bool(original._check_success())
        rows.append([*env.observer["object"]()[-2:], env.solved()])
    shares = np.mean(rows, axis=0)
    assert ((shares > 0.02) & (shares < 0.98)).all(), shares


def test_two_arms_take_an_action_each():
    env = RobomimicEnv("transport", chunk=2)
    assert env.action_space.shape == (28,)
    assert env.observation_space.shape == (59,)
    env.reset(seed=1)
    before = [env.observer[f"robot{i}_eef_pos"]() for i in range(2)]
    action = np.zeros((2, 14))
    action[:, 9] = 1.0  # the second arm goes up
    env.step(action.ravel())
    moved = [env.observer[f"robot{i}_eef_pos"]() - was for i, was in enumerate(before)]
    assert moved[1][2] > 0.005 > 5 * abs(moved[0][2])


def test_each_episode_of_transport_has_its_own_hammer_also_in_copies_and_from_snapshots():
    one, two = RobomimicEnv("transport"), RobomimicEnv("transport")
    one.reset(seed=1)
    mass = one.model.body_mass.copy()
    two.reset(seed=2)
    assert not np.allclose(mass, two.model.body_mass)
    random = np.random.default_rng(0)
    for _ in range(3):
        one.step(random.uniform(-1, 1, 14))
    two.restore(one.snapshot())
    np.testing.assert_array_equal(two.model.body_mass, mass)
    action = random.uniform(-1, 1, 14)
    np.testing.assert_array_equal(one.step(action)[0], two.step(action)[0])
    two.reset(seed=2)
    package = import_robosuite().__file__.rsplit("/robosuite/", 1)[0]
    for env in (one, two):
        xml = env.model_xml().replace('file="robosuite', f'file="{package}/robosuite')
        np.testing.assert_allclose(mujoco.MjModel.from_xml_string(xml).body_mass, env.model.body_mass, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_published_files_are_cloned_and_steered_and_nothing_else_is_there(name, tmp_path, monkeypatch):
    """A file of the published layout, of random motion."""
    monkeypatch.chdir(tmp_path)
    task = RobomimicTask.standard(name)
    config = DiffusionBCConfig(task=name)
    with pytest.raises(DataError, match=f"demonstrations of {name} are published files alone: put low_dim_v141"):
        assert config.data_file
    with pytest.raises(ConfigError, match=f"--tasks {name}: no scripted demonstrator"):
        call(collect_demos.main, tasks=(name,))
    with pytest.raises(ConfigError, match=f"{name} is published today as of robosuite 1.5"):
        call(collect_demos.main, tasks=(name,), download=True)
    path = tmp_path / "datasets" / name / "ph" / "low_dim_v141.hdf5"
    path.parent.mkdir(parents=True)
    write_demonstrations(path, [_random_motion(task, seed) for seed in (0, 1)], task, {}, {})
    with h5py.File(path) as file:
        assert file["data/demo_0/obs/object"].shape[1] == {"tool_hang": 44, "transport": 41}[name]
    call(train_bc.main, task=name, epochs=1, hidden_dims=(16,), device="cpu", save_dir="bc")
    call(evaluate.main, checkpoint=tmp_path / "bc" / "state_1.pt", n_episodes=1, horizon=4, ddim_steps=2)
    sizes = {"initial_steps": 4, "max_timesteps": 8, "utd": 1, "num_envs": 1, "horizon": 4, "ddim_steps": 2}
    few = {"eval_freq": 8, "n_episodes": 1, "fresh_episodes": 1, "device": "cpu"}
    settings = tmp_path / "tiny.yaml"
    settings.write_text("least_base_rate: 0\nhidden_dims: [8]\nbatch_size: 4\n")
    call(
        train_dsrl.main,
        bc_checkpoint=tmp_path / "bc" / "state_1.pt",
        config=settings,
        save_dir=str(tmp_path / "dsrl"),
        **sizes,
        **few,
    )
    assert read_json(tmp_path / "dsrl" / "result.json")["task"] == name


def _random_motion(task, seed):
    env, random = RobomimicEnv(task), np.random.default_rng(seed)
    env.reset(seed=seed)
    seen, states, actions = [{key: look() for key, look in env.observer.items()}], [], []
    for _ in range(6):
        states.append(env.state())
        actions.append(random.uniform(-1, 1, task.action_dim))
        env.step(actions[-1])
        seen.append({key: look() for key, look in env.observer.items()})
    columns = {key: np.stack([row[key] for row in seen]) for key in seen[0]}
    return Demonstration(
        states=np.stack(states),
        actions=np.stack(actions),
        rewards=np.zeros(6),
        observations={key: column[:-1] for key, column in columns.items()},
        following={key: column[1:] for key, column in columns.items()},
        model_xml=env.model_xml(),
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_built_is_refused_by_name(name):
    task = RobomimicTask.standard(name)
    assert (task.horizon, task.observation_dim()) == (700, {"tool_hang": 53, "transport": 59}[name])
    with pytest.raises(TaskError, match=r"of robosuite 1\.5: built of 1\.4 alone"):
        RobomimicTask.standard(name, "1.5")
    arguments = json.loads(task.env_args)
    for key, value in (("robots", ["Panda"] * (3 - task.arms)), ("bin_size", [1, 1, 1]), ("table_full_size", 3)):
        changed = json.loads(task.env_args)
        changed["env_kwargs"][key] = value
        with pytest.raises(DataError, match=rf"f: env_kwargs\.{key} is "):
            RobomimicTask.from_env_args(json.dumps(changed), "f")
    with pytest.raises(DataError, match=r"of robosuite 1\.5, expected that of 1\.4"):
        newer = {**arguments, "env_version": "1.5.1"}
        RobomimicTask.from_env_args(json.dumps(newer), "f")
    with pytest.raises(ConfigError, match="expected raw"):
        feature_columns(task, task.policy_keys, "six")
