"""Models and placements against what was recorded from the original simulator."""

import json
from functools import cache

import h5py
import mujoco
import numpy as np
import pytest

import envs
from envs.composuite.placement import goal_position, obstacle_pose, sample_object_position
from envs.composuite.scene import drawn_model, physics_model
from envs.parity import Replay, load_trace
from offline_compositional_rl_datasets.composuite import COMPOSUITE, ROBOTS, CompoSuiteTask, all_tasks
from offline_compositional_rl_datasets.state_transform import canonicalise
from tests.benchmark_axes import benchmark_axes
from tests.conftest import SHARED

GOLDEN = SHARED / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the recordings in shared/golden")
MODELS = sorted(path.stem for path in (GOLDEN / "models").glob("*.json"))
TRACES = sorted(path.stem for path in (GOLDEN / "traces").glob("*.npz"))
EXPERT_DATA = sorted((SHARED / "expert_data").glob("*/*/data.hdf5"))

_GEOM = ("size", "pos", "quat", "friction", "solref", "solimp", "margin", "gap", "rgba")
_GEOM_EXACT = ("contype", "conaffinity", "condim", "group", "priority")
_JOINT_DOF = ("damping", "armature", "frictionloss")


@cache
def _golden(name):
    return json.loads((GOLDEN / "models" / f"{name}.json").read_text())


def _names(model, kind, count):
    return [mujoco.mj_id2name(model, kind, i) for i in range(count)]


@needs_golden
@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_parts_of_the_original_in_its_order(name):
    model, golden = drawn_model(CompoSuiteTask.parse(name)), _golden(name)
    for key, count in golden["sizes"].items():
        if key != "nmesh":  # meshes of parts that are drawn only
            assert getattr(model, key) == count, key
    kinds = {"bodies": ("BODY", model.nbody), "joints": ("JOINT", model.njnt), "actuators": ("ACTUATOR", model.nu)}
    for key, (kind, count) in kinds.items():
        assert _names(model, getattr(mujoco.mjtObj, f"mjOBJ_{kind}"), count) == golden["order"][key], key


@needs_golden
@pytest.mark.parametrize("name", MODELS)
def test_a_models_options_are_those_of_the_original(name):
    option, golden = drawn_model(CompoSuiteTask.parse(name)).opt, _golden(name)["option"]
    for key, value in golden.items():
        np.testing.assert_allclose(getattr(option, key), value, rtol=0, atol=1e-15, err_msg=key)


@needs_golden
@pytest.mark.parametrize("name", MODELS)
def test_bodies_and_geoms_equal_the_originals(name):
    model, golden = drawn_model(CompoSuiteTask.parse(name)), _golden(name)
    for body in golden["bodies"]:
        index = model.body(body["name"]).id
        for key, array in (("mass", model.body_mass), ("inertia", model.body_inertia), ("pos", model.body_pos)):
            np.testing.assert_allclose(array[index], body[key], atol=1e-12, err_msg=f"{body['name']} {key}")
        np.testing.assert_allclose(model.body_quat[index], body["quat"], atol=1e-12)
        for geom in body["geoms"]:
            i, label = geom["id"], f"{body['name']} geom {geom['id']} {geom['name']}"
            assert model.geom_bodyid[i] == index, label
            for key in _GEOM_EXACT:
                assert getattr(model, f"geom_{key}")[i] == geom[key], f"{label} {key}"
            for key in _GEOM:
                recorded = getattr(model, f"geom_{key}")[i]
                np.testing.assert_allclose(recorded, geom[key], atol=1e-7, err_msg=f"{label} {key}")


@needs_golden
@pytest.mark.parametrize("name", MODELS)
def test_arm_gripper_and_motors_equal_the_originals(name):
    model, golden = drawn_model(CompoSuiteTask.parse(name)), _golden(name)
    for joint in golden["robot"]["joints"]:
        i = model.joint(joint["name"]).id
        np.testing.assert_allclose(model.jnt_range[i], joint["range"], atol=1e-12)
        for key in _JOINT_DOF:
            np.testing.assert_allclose(getattr(model, f"dof_{key}")[model.jnt_dofadr[i]], joint[key], err_msg=key)
    for actuator in golden["actuators"]:
        i = model.actuator(actuator["name"]).id
        assert i == actuator["id"]
        for key in ("gear", "ctrlrange", "forcerange"):
            np.testing.assert_allclose(getattr(model, f"actuator_{key}")[i], actuator[key], err_msg=key)
        for key in ("gainprm", "biasprm"):
            np.testing.assert_allclose(getattr(model, f"actuator_{key}")[i, :3], actuator[key], err_msg=key)


@pytest.mark.parametrize(
    "name",
    [
        "IIWA_Box_None_PickPlace",
        "Jaco_Plate_ObjectDoor_Shelf",
        "Kinova3_Dumbbell_GoalWall_Push",
        "Panda_Hollowbox_ObjectWall_Trashcan",
    ],
)
def test_the_model_that_is_stepped_moves_as_the_whole_one_does_to_the_last_bit(name):
    whole, stepped = drawn_model(CompoSuiteTask.parse(name)), physics_model(CompoSuiteTask.parse(name))
    assert stepped.ngeom < whole.ngeom and stepped.nmesh < whole.nmesh
    for field in (
        "body_mass",
        "body_inertia",
        "body_ipos",
        "body_pos",
        "body_quat",
        "dof_damping",
        "actuator_ctrlrange",
    ):
        np.testing.assert_array_equal(getattr(stepped, field), getattr(whole, field), err_msg=field)
    data, expected = mujoco.MjData(stepped), mujoco.MjData(whole)
    contacts = 0
    for torques in np.random.default_rng(0).normal(0, 20, (40, stepped.nu)):
        for model, state in ((stepped, data), (whole, expected)):
            state.ctrl[:] = torques
            mujoco.mj_step(model, state, nstep=25)
        np.testing.assert_array_equal(data.qpos, expected.qpos)
        contacts += data.ncon
    assert contacts > 0


@needs_golden
@pytest.mark.parametrize("robot", ROBOTS)
def test_objects_start_where_the_original_places_them_with_the_same_seed(robot):
    placements = json.loads((GOLDEN / "placements.json").read_text())["tasks"]
    assert len(placements) == 64
    for name, golden in placements.items():
        task = CompoSuiteTask.parse(f"{robot}_{name}")
        for seed, position in enumerate(golden["object"]):
            sampled = sample_object_position(task, np.random.RandomState(seed))
            np.testing.assert_allclose(sampled, position, rtol=0, atol=1e-12, err_msg=f"{task} seed {seed}")
        np.testing.assert_allclose(goal_position(task), golden["goal"][:3], atol=1e-12)
        pose = obstacle_pose(task)
        assert (pose is None) == (golden["obstacle"] is None)
        if pose is not None:
            np.testing.assert_allclose(np.concatenate(pose), golden["obstacle"], atol=1e-12)


@benchmark_axes
@needs_golden
@pytest.mark.parametrize("name", TRACES)
def test_a_reset_observes_what_the_original_does_with_its_sign(name):
    trace = load_trace(GOLDEN / "traces" / f"{name}.npz")
    recorded = trace["init_obs"]
    first, _ = envs.make(trace.task, task_ids=True).reset(seed=int(trace["seed"]))
    np.testing.assert_allclose(first, recorded, rtol=0, atol=3e-7)
    # The check of parity sees a sign that is wrong in the first observation.
    assert Replay(trace).start_error() <= 3e-7
    part = COMPOSUITE.relative_quaternions[0]
    other = recorded.copy()
    other[part] *= -1
    trace.arrays["init_obs"] = other
    assert Replay(trace).start_error() > 1


@benchmark_axes
@pytest.mark.skipif(not EXPERT_DATA, reason="needs the episodes in shared/expert_data")
@pytest.mark.parametrize("path", EXPERT_DATA, ids=lambda path: path.parent.name)
def test_episodes_recorded_in_the_original_start_with_the_same_observation(path):
    env = envs.make(path.parent.name, task_ids=True)
    with h5py.File(path) as file:
        starts = file["observations"][::500]
    for seed, recorded in enumerate(starts, start=5000):
        np.testing.assert_allclose(env.reset(seed=seed)[0], recorded, rtol=0, atol=3e-7)


@pytest.mark.parametrize("name", ["IIWA_Box_None_Push", "IIWA_Plate_ObjectDoor_Shelf"])
def test_the_sign_that_learners_see_at_the_start_is_the_simulators(name):
    first, _ = envs.make(name).reset(seed=0)
    things = [part for part in COMPOSUITE.relative_quaternions if abs(first[part][3]) < 1e-9]
    assert len(things) >= 2
    for part in things:
        assert first[part][0] > 0.5
        np.testing.assert_array_equal(canonicalise(first, COMPOSUITE)[part], first[part])


@needs_golden
def test_two_thousand_placements_span_the_recorded_ranges():
    placements = json.loads((GOLDEN / "placements.json").read_text())["tasks"]
    random = np.random.RandomState(7)
    for name in ("Box_None_PickPlace", "Plate_ObjectWall_Shelf", "Hollowbox_ObjectDoor_Push"):
        task = CompoSuiteTask.parse(f"IIWA_{name}")
        drawn = np.array([sample_object_position(task, random) for _ in range(2000)])
        np.testing.assert_allclose(drawn.min(axis=0), placements[name]["observed_min"], atol=2e-3)
        np.testing.assert_allclose(drawn.max(axis=0), placements[name]["observed_max"], atol=2e-3)


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_task_builds_resets_with_its_seed_and_steps(robot):
    for task in all_tasks():
        if task.robot != robot:
            continue
        env = envs.make(task, task_ids=True)
        first, _ = env.reset(seed=3)
        again, _ = env.reset(seed=3)
        np.testing.assert_array_equal(first, again)
        observation, reward, terminated, truncated, _ = env.step(np.full(8, 0.5))
        assert env.observation_space.contains(observation)
        assert 0 <= reward <= 1
        assert not terminated
        assert not truncated
