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
from envs.robomimic import RobomimicEnv
from envs.robomimic_experts import EXPERTS
from envs.robomimic_observation import OBJECT_BODIES
from envs.robomimic_scene import global_random_state, import_robosuite, resize_cube
from envs.robomimic_substeps import operational_space_torque, rotation_matrix
from envs.robomimic_task import RobomimicTask, task_names
from runtime.errors import DataError, TaskError

TASKS = task_names()


@pytest.fixture(scope="module")
def made():
    """One environment of each task."""
    return {name: RobomimicEnv(name) for name in TASKS}


def _original(task):
    """robosuite's own environment, as the data sets' arguments make it."""
    return import_robosuite().make(task.env_name, **task.env_kwargs)


@pytest.mark.parametrize("name", TASKS)
def test_start_and_motion_are_those_of_robosuite(made, name):
    env = made[name]
    original = _original(env.task)
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
        action = random.uniform(-1, 1, 7)
        if step % 3 == 0:
            action[3:6] = 0  # keeps the former goal of the orientation
        original.step(action)
        env.step(action)
    # robosuite's rotations are single precision.
    np.testing.assert_allclose(env.data.qpos, data.qpos, atol=1e-6)
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
    expected = Rotation.from_rotvec(axis).as_matrix()
    np.testing.assert_allclose(rotation_matrix(np.array(axis)), expected, atol=1e-12)


@pytest.mark.parametrize("name", TASKS)
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


@pytest.mark.parametrize("name", TASKS)
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


@pytest.mark.parametrize("name", TASKS)
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


def test_arguments_that_the_installed_simulator_would_read_otherwise_are_refused():
    arguments = json.loads(RobomimicTask.standard("can").env_args)
    assert RobomimicTask.from_env_args(json.dumps(arguments), "x").name == "can"

    def refused(match, **changes):
        changed = json.loads(json.dumps(arguments))
        for path, value in changes.items():
            *parents, last = path.split("__")
            inner = changed
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        with pytest.raises(DataError, match=match):
            RobomimicTask.from_env_args(json.dumps(changed), "file.hdf5")

    refused("made with robosuite 1.5.1, installed is 1.4", env_version="1.5.1")
    refused("'ToolHang', expected one of Lift", env_name="ToolHang")
    refused("control_delta is False", env_kwargs__controller_configs__control_delta=False)
    refused("'JOINT_POSITION', expected 'OSC_POSE'", env_kwargs__controller_configs__type="JOINT_POSITION")
    refused("robots", env_kwargs__robots=["Sawyer"])
    with pytest.raises(DataError, match="not those of a robosuite environment"):
        RobomimicTask.from_env_args("{", "file.hdf5")
    with pytest.raises(TaskError, match="'lif'"):
        RobomimicTask.standard("lif")


def test_make_knows_the_tasks_by_name():
    assert isinstance(envs.make("can", horizon=5), RobomimicEnv)
