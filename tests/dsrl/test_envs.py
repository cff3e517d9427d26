import importlib
import json

import gymnasium
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import envs
from envs.pool import EnvPool
from envs.robomimic.env import RobomimicEnv
from envs.robomimic.experts import EXPERTS
from envs.robomimic.observation import OBJECT_BODIES
from envs.robomimic.scene import global_random_state, import_robosuite, resize_cube
from envs.robomimic.substeps import operational_space_torque, rotation_matrix
from envs.robomimic.task import RobomimicTask, task_names
from runtime.errors import DataError, TaskError

TASKS = task_names()


@pytest.fixture(scope="module")
def made():
    """One environment of each task."""
    return {name: RobomimicEnv(name) for name in TASKS}


def _original(task):
    """robosuite's own environment, as the data sets' arguments make it."""
    arguments = json.loads(task.env_args)
    return import_robosuite().make(arguments["env_name"], **arguments["env_kwargs"])


def _with(name, series="1.4", **changes):
    """The standard arguments of a task with some changed: `a__b` is env_kwargs.a.b, and `DROPPED` takes a key out."""
    arguments = json.loads(RobomimicTask.standard(name, series).env_args)
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = arguments["env_kwargs"] if path not in ("env_version", "env_name", "type", "lang") else arguments
        for parent in parents:
            inner = inner.setdefault(parent, {})
        if value is DROPPED:
            del inner[last]
        else:
            inner[last] = value
    return json.dumps(arguments)


DROPPED = object()

HONOURED = {
    "lift": {
        "control_freq": 12.5,
        "table_friction": [0.7, 0.004, 0.0002],
        "table_full_size": [0.9, 0.8, 0.06],
        "controller_configs__kp": [100, 120, 140, 160, 180, 200],
        "controller_configs__damping_ratio": 0.8,
    },
    "tool_hang": {"control_freq": 25, "controller_configs__kp": 120, "table_friction": [0.8, 0.004, 0.0002]},
    "transport": {
        "initialization_noise": {"magnitude": 0.03, "type": "gaussian"},
        "controller_configs__output_max": 0.04,
    },
    "can": {"initialization_noise": {"magnitude": 0.05, "type": "uniform"}, "table_friction": [0.9, 0.006, 0.0001]},
    "square": {
        "control_freq": 40,
        "initialization_noise": None,
        "controller_configs__output_max": [0.04, 0.05, 0.06, 0.3, 0.4, 0.5],
        "controller_configs__output_min": -0.04,
    },
}


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_start_and_motion_are_those_of_robosuite(made, name, changed):
    """Also of one with other arguments."""
    env = made[name]
    if changed:
        env = RobomimicEnv(RobomimicTask.from_env_args(_with(name, **HONOURED[name]), "x"))
    original = _original(env.task)
    assert env.metadata["render_fps"] == original.control_freq
    assert env.controller.substeps == int(original.control_timestep / original.model_timestep)
    with global_random_state(7):
        original.reset()
    env.reset(seed=7)
    theirs, data = original.sim.model._model, original.sim.data._data
    np.testing.assert_array_equal(env.data.qpos, data.qpos)
    touching = (theirs.geom_contype | theirs.geom_conaffinity) != 0
    for field in ("geom_size", "geom_rbound", "geom_aabb", "geom_pos", "geom_friction", "geom_solref"):
        np.testing.assert_array_equal(getattr(env.model, field), getattr(theirs, field)[touching], err_msg=field)
    for field in ("body_mass", "body_pos", "body_quat", "body_ipos", "dof_armature", "dof_damping"):
        np.testing.assert_array_equal(getattr(env.model, field), getattr(theirs, field), err_msg=field)
    for field in ("body_inertia", "dof_invweight0", "body_invweight0"):
        np.testing.assert_allclose(getattr(env.model, field), getattr(theirs, field), rtol=1e-12, err_msg=field)
    random = np.random.default_rng(0)
    for step in range(12):
        action = random.uniform(-1, 1, env.task.action_dim)
        if step % 3 == 0:
            action[3:6] = 0  # keeps the former goal of the orientation
        original.step(action)
        env.step(action)
    np.testing.assert_allclose(env.data.qpos, data.qpos, atol=1e-11)
    original.sim.forward()
    observed = original._get_observations(force_update=True)
    observed["object"] = observed["object-state"]
    assert set(env.keys) <= set(observed)
    for key in set(env.observer) & set(observed):
        np.testing.assert_allclose(env.observer[key](), observed[key], atol=5e-6, err_msg=key)


@pytest.mark.parametrize("name", TASKS)
def test_a_model_without_what_is_only_drawn_moves_the_same_to_the_last_bit(made, name):
    env = made[name]
    env.reset(seed=5)
    full, slim = env.scene.to_draw(env.model), env.model
    assert full.ngeom > slim.ngeom
    if name == "lift":  # pictures need the size of the cube alone, motion its mass too
        resize_cube(full, mujoco.MjData(full), slim.geom("cube_g0").size, float(1000))
        np.testing.assert_allclose(full.body_mass, slim.body_mass, rtol=1e-12)
        full.body_mass[:], full.body_inertia[:] = slim.body_mass, slim.body_inertia
        full.dof_invweight0[:], full.body_invweight0[:] = slim.dof_invweight0, slim.body_invweight0
    one, two = mujoco.MjData(full), mujoco.MjData(slim)
    random = np.random.default_rng(0)
    for model, data in ((full, one), (slim, two)):
        data.qpos[:] = env.data.qpos
        mujoco.mj_forward(model, data)
    for _ in range(20):
        torque = one.qfrc_bias[:7] + random.normal(size=7) * 3
        for model, data in ((full, one), (slim, two)):
            data.ctrl[:7] = torque
            mujoco.mj_step(model, data, nstep=25)
    np.testing.assert_array_equal(one.qpos, two.qpos)
    assert one.ncon == two.ncon


@pytest.mark.parametrize("singular", [False, True])
def test_the_compiled_control_law_is_the_written_one(singular):
    random = np.random.default_rng(0)
    J, factor = random.normal(size=(6, 7)), random.normal(size=(7, 7))
    mass = factor @ factor.T + np.eye(7)
    if singular:
        J[:3] = 0  # the pseudo-inverse remains
    q, qd, rest = random.normal(size=(3, 7))
    position, goal = random.normal(size=(2, 3))
    kp, kd = random.uniform(1, 100, (2, 6))
    rotation, goal_rotation = (rotation_matrix(axis) for axis in random.normal(size=(2, 3)))
    torque = operational_space_torque(J, mass, q, qd, position, rotation, goal, goal_rotation, rest, kp, kd)

    sine = sum(np.cross(rotation[:, k], goal_rotation[:, k]) for k in range(3)) / 2
    pull = np.concatenate([goal - position, sine]) * kp - J @ qd * kd
    Lambda = J @ np.linalg.inv(mass) @ J.T
    wrench = np.concatenate([np.linalg.pinv(Lambda[:3, :3]) @ pull[:3], np.linalg.pinv(Lambda[3:, 3:]) @ pull[3:]])
    posture = 10 * (rest - q) - 2 * np.sqrt(10) * qd
    null = np.eye(7) - J.T @ np.linalg.pinv(Lambda) @ J @ np.linalg.inv(mass)
    np.testing.assert_allclose(torque, J.T @ wrench + null @ mass @ posture, rtol=1e-8, atol=1e-8)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(-3, 3)] * 3).filter(lambda axis: np.linalg.norm(axis) > 1e-6))
def test_a_rotation_is_the_one_about_its_axis(axis):
    """And robosuite's to the last bit, which is in single precision."""
    transform = importlib.import_module(f"{import_robosuite().__name__}.utils.transform_utils")
    ours = rotation_matrix(np.array(axis))
    np.testing.assert_allclose(ours, Rotation.from_rotvec(axis).as_matrix(), atol=1e-6)
    np.testing.assert_array_equal(ours, transform.quat2mat(transform.axisangle2quat(np.array(axis))))


@pytest.mark.parametrize("name", OBJECT_BODIES)
def test_solved_is_what_robosuite_says(made, name):
    """At states around the goal, put into both."""
    env = made[name]
    env.reset(seed=0)
    original = env.scene.robosuite
    body = env.model.body(OBJECT_BODIES[name]).id
    joint = env.model.body_jntadr[body]
    place = slice(env.model.jnt_qposadr[joint], env.model.jnt_qposadr[joint] + 3)
    goal = {"lift": (0.0, 0.0, 0.84), "can": (0.2, 0.4, 0.85), "square": (0.23, 0.1, 0.85)}[name]
    random, answers = np.random.default_rng(0), []
    for _ in range(200):
        env.data.qpos[place] = goal + random.normal(size=3) * (0.06, 0.06, 0.03)
        mujoco.mj_kinematics(env.model, env.data)
        theirs = original.sim.data._data
        theirs.qpos[:] = env.data.qpos
        mujoco.mj_kinematics(env.scene.full, theirs)
        answers.append(env.solved())
        assert answers[-1] == bool(original._check_success())
    assert 10 < sum(answers) < 190


def test_a_picture_shows_the_present_cube(made):
    env = made["lift"]
    for seed in (1, 2):
        env.reset(seed=seed)
        drawn = env.scene.to_draw(env.model)
        for geom in ("cube_g0", "cube_g0_vis"):
            np.testing.assert_array_equal(drawn.geom(geom).size, env.model.geom("cube_g0").size)


@pytest.mark.parametrize("name", TASKS)
def test_the_recorded_model_is_the_one_of_the_episode(made, name):
    env = made[name]
    env.reset(seed=3)
    xml = env.model_xml()
    assert "/" not in xml.split('file="')[1][0], "paths start at the package"
    package = import_robosuite().__file__.rsplit("/robosuite/", 1)[0]
    model = mujoco.MjModel.from_xml_string(xml.replace('file="robosuite', f'file="{package}/robosuite'))
    touching = (model.geom_contype | model.geom_conaffinity) != 0
    np.testing.assert_allclose(model.geom_size[touching], env.model.geom_size, atol=1e-12)
    np.testing.assert_allclose(model.body_mass, env.model.body_mass, rtol=1e-9)
    assert (model.nq, model.nv) == (env.model.nq, env.model.nv)


def test_an_episode_depends_on_its_seed_alone(made):
    env = made["lift"]

    def episode(seed):
        first, _ = env.reset(seed=seed)
        return np.stack([first, *(env.step(np.full(7, 0.3))[0] for _ in range(3))])

    first = episode(1)
    other = episode(2)
    np.testing.assert_array_equal(episode(1), first)
    assert not np.array_equal(first, other)


def test_the_global_generator_is_left_as_it_was(made):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    made["can"].reset(seed=5)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("name", EXPERTS)
def test_the_scripted_expert_solves_the_task(made, name):
    env = made[name]
    observation, _ = env.reset(seed=11)
    for _ in range(250):
        observation, reward, _, _, info = env.step(EXPERTS[name](observation))
        if info["success"]:
            break
    assert info["success"]
    assert reward == 1


def test_a_chunk_is_its_actions_one_after_the_other():
    single, chunked = RobomimicEnv("lift"), RobomimicEnv("lift", chunk=4)
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 4, 7))
    single.reset(seed=4)
    chunked.reset(seed=4)
    for chunk in actions:
        after, _, _, _, info = chunked.step(chunk.ravel())
        for action in chunk:
            last = single.step(action)[0]
        np.testing.assert_array_equal(after, last)
        assert info["executed"] == 4


def test_nothing_is_executed_beyond_the_horizon_or_a_success_that_ends_the_episode():
    env = RobomimicEnv("lift", chunk=4, horizon=6)
    env.reset(seed=0)
    env.step(np.zeros(28))
    _, _, terminated, truncated, info = env.step(np.zeros(28))
    assert (info["executed"], terminated, truncated, env.steps) == (2, False, True, 6)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(28))
    env.until_success, env.horizon = True, 400
    observation, _ = env.reset(seed=0)
    terminated = False
    while not terminated:
        observation, reward, terminated, truncated, info = env.step(np.tile(EXPERTS["lift"](observation), 4))
        assert not truncated
    assert reward == 1, "the first solved step is the last one executed"


def test_a_restored_state_is_observed_as_it_was(made):
    env = made["square"]
    env.reset(seed=2)
    for _ in range(5):
        env.step(np.full(7, 0.2))
    state, observation = env.state(), env.observation()
    env.reset(seed=9)
    env.reset_to(state)
    np.testing.assert_allclose(env.observation(), observation, atol=1e-7)
    with pytest.raises(ValueError, match=r"expected \(45,\)"):
        env.reset_to(state[:-1])


@pytest.mark.parametrize("name", EXPERTS)
def test_an_environment_goes_on_from_a_snapshot_to_the_last_bit(made, name):
    env, other = made[name], RobomimicEnv(name)
    observation, _ = env.reset(seed=6)
    for _ in range(30):
        observation = env.step(EXPERTS[name](observation))[0]
    snapshot = env.snapshot()
    action = EXPERTS[name](observation)
    after = [env.step(action)[0] for _ in range(10)]
    after.append(env.reset()[0])
    other.restore(snapshot)
    np.testing.assert_array_equal(other.observation(), observation)
    again = [other.step(action)[0] for _ in range(10)]
    again.append(other.reset()[0])
    np.testing.assert_array_equal(after, again)


def test_actions_that_cannot_be_executed_are_refused(made):
    env = made["lift"]
    env.reset(seed=0)
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.full(7, np.nan))
    with pytest.raises(ValueError, match=r"expected \(7,\)"):
        env.step(np.zeros(8))


def test_workers_step_robomimic_tasks_too():
    task = RobomimicTask.standard("lift")
    actions = np.full((3, 28), 0.1)

    def run(workers):
        with EnvPool(task, 3, workers=workers, chunk=4, horizon=8) as vector:
            return [vector.reset([1, 2, 3]), *vector.step(actions)]

    for alone, spread in zip(run(0), run(2), strict=True):
        np.testing.assert_array_equal(alone, spread)


REFUSED = {
    "env_args.env_version": ["1.2.0", "1.6.0", "2", 1.3],
    "env_args.type": [2, None],
    "env_args.seed": [1],
    "env_kwargs.control_freq": [0, -20, "20", True, None, 501, 0.5],
    "env_kwargs.reward_shaping": [True],
    "env_kwargs.reward_scale": [2.0, None],
    "env_kwargs.robots": [["Sawyer"], ["Panda", "Panda"], None],
    "env_kwargs.gripper_types": [None, "RethinkGripper"],
    "env_kwargs.env_configuration": ["single-arm-opposed"],
    "env_kwargs.initialization_noise": ["none", {"magnitude": -1, "type": "gaussian"}, {"magnitude": 0.1}],
    "env_kwargs.table_friction": [1.0, [1, 2], [1, 2, "3"]],
    "env_kwargs.placement_initializer": [{}],
    "env_kwargs.hard_reset": [False],
    "env_kwargs.bin1_pos": [[0.0, 0.0, 0.8]],
    "env_kwargs.z_offset": [0.1],
    "env_kwargs.single_object_mode": [2],
    "env_kwargs.lite_physics": [False],
    "env_kwargs.mount_types": ["default"],
    "controller_configs.type": ["JOINT_POSITION", "OSC_POSITION", None],
    "controller_configs.control_delta": [False],
    "controller_configs.uncouple_pos_ori": [False],
    "controller_configs.impedance_mode": ["variable", "variable_kp"],
    "controller_configs.interpolation": ["linear"],
    "controller_configs.position_limits": [[[0, 0, 0], [1, 1, 1]]],
    "controller_configs.orientation_limits": [[[0, 0, 0], [1, 1, 1]]],
    "controller_configs.input_max": [2, [1, 1, 1, 2, 2, 2]],
    "controller_configs.input_min": [0],
    "controller_configs.output_max": ["0.05", [0.05] * 3, None, float("nan")],
    "controller_configs.kp": [-1, [1, 2, 3], True],
    "controller_configs.damping": [0.5],
    "controller_configs.damping_ratio": [-1, "1"],
    "controller_configs.input_ref_frame": ["world"],
    "controller_configs.stiffness": [3],
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_of_env_args_that_is_neither_honoured_nor_as_built_is_refused_by_name(key):
    where, last = key.split(".")
    for value in REFUSED[key]:
        arguments = json.loads(RobomimicTask.standard("can").env_args)
        inner = {
            "env_args": arguments,
            "env_kwargs": arguments["env_kwargs"],
            "controller_configs": arguments["env_kwargs"]["controller_configs"],
        }[where]
        inner[last] = value
        with pytest.raises(DataError, match=rf"^file\.hdf5: {where}\.{last} is ") as refusal:
            RobomimicTask.from_env_args(json.dumps(arguments), "file.hdf5")
        assert "\n" not in str(refusal.value)


def test_arguments_that_draw_record_or_end_episodes_have_no_effect():
    pictures = {"has_offscreen_renderer": True, "use_camera_obs": True, "camera_names": ["agentview"], "horizon": 100}
    plain, drawn = RobomimicTask.standard("lift"), RobomimicTask.from_env_args(_with("lift", **pictures), "x")
    assert drawn.arguments == plain.arguments
    env = RobomimicEnv(drawn)  # needs no OpenGL
    np.testing.assert_array_equal(env.reset(seed=1)[0], RobomimicEnv(plain).reset(seed=1)[0])


def test_what_is_left_out_of_the_arguments_is_what_robosuite_takes_for_it():
    bare = {f"controller_configs__{key}": DROPPED for key in ("kp", "output_max", "input_min", "control_delta")}
    text = _with("lift", **bare, control_freq=DROPPED, reward_shaping=DROPPED, env_version=DROPPED)
    assert RobomimicTask.from_env_args(text, "x").arguments == RobomimicTask.standard("lift").arguments


def test_env_args_that_are_none_are_refused_in_one_line():
    for text in ("{", "[1]", "null", '{"env_name": "Lift"}', _with("lift", controller_configs="OSC_POSE"), "[" * 10**5):
        with pytest.raises(DataError, match=r"expected .*robosuite environment"):
            RobomimicTask.from_env_args(text, "file.hdf5")
    with pytest.raises(DataError, match="'Door', expected one of Lift"):
        RobomimicTask.from_env_args(_with("lift", env_name="Door"), "file.hdf5")
    with pytest.raises(TaskError, match="'lif'"):
        RobomimicTask.standard("lif")


def test_make_knows_the_tasks_by_name():
    assert isinstance(envs.make("can", horizon=5), RobomimicEnv)
