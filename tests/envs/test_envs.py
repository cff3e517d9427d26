import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

import envs
from envs.experts import expert_for
from envs.experts.kinematics import arm_of
from envs.recording import CollectConfig, record
from offline_compositional_rl_datasets.composuite import COMPOSUITE, ROBOTS, CompoSuiteTask, all_tasks
from pipeline.commands.tasks_flags import TasksFlags
from runtime.errors import ConfigError, DataError
from runtime.program import PROJECT_ROOT
from scripts import render_task
from scripts.render_task import FilmFlags
from tests.benchmark_axes import benchmark_axes

# Every element of every axis at least once.
SOME = [
    "IIWA_Box_None_PickPlace",
    "Jaco_Dumbbell_ObjectWall_Push",
    "Panda_Plate_ObjectDoor_Shelf",
    "Kinova3_Hollowbox_GoalWall_Trashcan",
]


def test_all_tasks_are_registered_with_gymnasium():
    for task in all_tasks():
        assert f"CompoSuite/{task}-v0" in gymnasium.registry


@pytest.mark.parametrize("name", SOME)
def test_an_environment_keeps_the_gymnasium_contract(name):
    env = gymnasium.make(f"CompoSuite/{name}-v0", horizon=3)
    observation, info = env.reset(seed=5)
    assert env.observation_space.contains(observation)
    assert info["success"] is False
    for step in range(1, 4):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert 0 <= reward <= 1
        assert not terminated
        assert truncated == (step == 3)
        assert isinstance(info["success"], bool)
        assert isinstance(terminated, bool)
        assert type(reward) is float
    env.close()


def test_a_controller_that_is_left_out_says_so():
    with pytest.raises(ConfigError, match="controller 'osc': expected 'joint'"):
        envs.make(SOME[0], controller="osc")


def test_sparse_reward_is_scaled_success_and_ignored_horizon_goes_on():
    env = envs.make(SOME[0], reward_shaping=False, reward_scale=5.0, horizon=2, ignore_done=True)
    env.reset(seed=0)
    for _ in range(4):
        _, reward, terminated, truncated, info = env.step(np.zeros(8))
        assert reward == 5.0 * info["success"]
        assert not terminated
        assert not truncated


def test_a_seed_decides_the_episode():
    env = envs.make(SOME[0])
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (5, 8))

    def episode(seed):
        first, _ = env.reset(seed=seed)
        return np.stack([first, *(env.step(action)[0] for action in actions)])

    first = episode(7)
    np.testing.assert_array_equal(episode(7), first)
    assert not np.array_equal(episode(8), first)


def test_task_ids_stand_in_the_observation_where_the_layout_says():
    task = CompoSuiteTask.parse(SOME[3])
    with_ids = envs.make(task, task_ids=True).reset(seed=1)[0]
    without = envs.make(task).reset(seed=1)[0]
    states, ids = COMPOSUITE.split_ids(with_ids)
    np.testing.assert_array_equal(states, without)
    np.testing.assert_array_equal(ids, task.one_hot)


def test_stepping_an_ended_episode_or_a_wrong_action_is_refused():
    env = envs.make(SOME[0], horizon=1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(8))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action of shape \(7,\), expected \(8,\)"):
        env.step(np.zeros(7))
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.full(8, np.nan))
    env.step(np.zeros(8))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(8))


@benchmark_axes
def test_traces_of_the_original_simulator_are_reproduced(shared):
    from envs.parity import main

    traces = sorted((shared / "golden" / "traces").glob("*.npz"))
    assert len(traces) == 12
    # Two of the twelve here, of different robots and arenas; `make parity` runs all.
    assert main([str(traces[2]), str(traces[9])]) == 0


def test_a_trace_of_another_form_is_refused(tmp_path):
    from envs.parity import _ARRAYS, load_trace

    arrays = dict.fromkeys(_ARRAYS, np.zeros(5)) | {"task": np.array(SOME[0].split("_")), "actions": np.zeros((5, 8))}
    for change, message in (
        ({"task": np.array(["IIWA"])}, "a name per axis"),
        ({"qpos": np.zeros(4)}, r"qpos has \(4,\)"),
    ):
        np.savez(tmp_path / "trace.npz", **(arrays | {"obs": np.zeros((5, COMPOSUITE.observation_dim))} | change))
        with pytest.raises(DataError, match=message):
            load_trace(tmp_path / "trace.npz")


def test_not_a_number_never_agrees_with_a_record():
    from envs.parity import Errors

    assert Errors(0.0, 1e-7, 0.0, True).agrees
    for values in ((np.nan, 0.0, 0.0), (0.0, np.nan, 0.0), (0.0, 0.0, np.nan)):
        assert not Errors(*values, True).agrees


def test_a_steps_quaternion_is_compared_with_its_sign_unless_w_is_nil():
    from envs.parity import _observation_error

    part = COMPOSUITE.relative_quaternions[1]
    for w, told in ((0.0, 0.0), (5e-7, 0.0), (1e-3, 2.0)):
        state = np.zeros(77)
        state[part] = (np.sqrt(1 - w**2), 0.0, 0.0, w)
        recorded = state.copy()
        recorded[part] *= -1
        error = _observation_error(state, COMPOSUITE.join_ids(recorded, np.zeros(COMPOSUITE.condition_dim)))
        assert error == pytest.approx(told, abs=1e-5)


def test_a_second_environment_of_a_task_shares_the_physics_model():
    assert envs.make(SOME[0]).simulation.model is envs.make(SOME[0]).simulation.model


@pytest.mark.parametrize("robot", ROBOTS)
def test_forward_kinematics_and_jacobian_agree_with_the_simulator(robot):
    env = envs.make(CompoSuiteTask(robot, "Box", "None", "PickPlace"))
    env.reset(seed=0)
    data, model = env.simulation.data, env.simulation.model
    q = np.random.default_rng(0).uniform(-1, 1, 7)
    data.qpos[:7] = q
    mujoco.mj_forward(model, data)
    tool, _, jacobian = arm_of(robot).forward(q[None])
    site = data.site("gripper0_grip_site")
    np.testing.assert_allclose(tool[0], site.xpos, atol=1e-12)
    expected = np.zeros((6, model.nv))
    mujoco.mj_jacSite(model, data, expected[:3], expected[3:], site.id)
    np.testing.assert_allclose(jacobian[0], expected[:, :7], atol=1e-12)


def test_an_expert_refuses_observations_with_task_ids_or_without_a_batch():
    expert = expert_for(CompoSuiteTask.parse(SOME[0]))
    for shape in ((1, COMPOSUITE.observation_dim), (77,)):
        with pytest.raises(ValueError, match=r"expected \(B, 77\)"):
            expert(np.zeros(shape))


def test_physics_goes_without_an_opengl_that_is_half_there(tmp_path):
    # Where OSMesa is installed it is taken; where it is not, this is what a half installed library looks like.
    program = (
        "import ctypes.util; ctypes.util.find_library = lambda name: name == 'OSMesa'\n"
        f"import envs; env = envs.make({SOME[0]!r}); env.reset(seed=0); env.step([0.0] * 8)"
    )
    clean = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run([sys.executable, "-c", program], env=clean, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("named", "told"), [("none", "MUJOCO_GL=none"), ("disable", "cannot render off screen")])
def test_a_machine_that_cannot_draw_says_so_in_one_line(tmp_path, named, told):
    command = [sys.executable, "-m", "scripts.render_task", SOME[0], "--out", str(tmp_path / "a.png"), "--horizon", "1"]
    done = subprocess.run(
        command, env={**os.environ, "MUJOCO_GL": named}, cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert told in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"film": FilmFlags(width=0)}, "width 0"),
        ({"film": FilmFlags(horizon=0)}, "horizon 0"),
        ({"film": FilmFlags(seed=-1)}, "seed -1"),
        ({"checkpoint": Path("a.pt"), "policy": Path("b.pt")}, "one of --checkpoint and --policy"),
        ({"of": TasksFlags(robot="IIWA"), "policy": Path("b.pt")}, "with a single task"),
        ({"of": TasksFlags(robot="IIWA", all_tasks=True)}, "one of --tasks, --robot and --all_tasks"),
        ({"of": TasksFlags(("x",), family="a.b:C"), "policy": Path("b.pt")}, "--policy: .* not of the family a.b:C"),
    ],
)
def test_a_film_that_cannot_be_is_refused(tmp_path, options, told):
    with pytest.raises(ConfigError, match=told):
        render_task.main(tmp_path / "a.png", **({"of": TasksFlags((SOME[0],)), "film": FilmFlags()} | options))


def test_the_task_to_film_may_stand_first():
    assert render_task._with_flag(["T", "--out", "a.png"]) == ["--task", "T", "--out", "a.png"]
    assert render_task._with_flag(["--out", "a.png"]) == ["--out", "a.png"]


def test_the_experts_see_a_batch_as_its_rows():
    task = CompoSuiteTask.parse("IIWA_Box_ObjectWall_Trashcan")
    env = envs.make(task)
    expert = expert_for(task)
    states = np.stack([env.reset(seed=seed)[0] for seed in range(4)])
    together = expert(states)
    assert together.shape == (4, 8)
    assert np.abs(together).max() <= 1
    np.testing.assert_allclose(together, np.concatenate([expert(state[None]) for state in states]), atol=1e-6)


@pytest.mark.parametrize("name", ["IIWA_Box_None_PickPlace", "IIWA_Box_GoalWall_Trashcan", "IIWA_Box_ObjectDoor_Push"])
def test_the_scripted_expert_solves_its_task(name):
    task = CompoSuiteTask.parse(name)
    runs = record(task, CollectConfig(noise=0.0, shove_every=0, slip=0.0), [0, 1], expert_for(task))
    assert all(run.success for run in runs)
    for run in runs:
        (episode,) = run.episodes
        assert len(episode.rewards) < 500, "a run ends once it has been solved for a while"
        assert episode.rewards.min() >= 0
        assert episode.rewards.max() <= 1


def test_shoves_are_not_recorded_but_what_follows_them_is():
    config = CollectConfig(horizon=120, shove_every=20, shove_steps=8, slip=0.0)
    task = CompoSuiteTask.parse("IIWA_Box_None_Push")
    (run,) = record(task, config, [3], expert_for(task))
    lengths = [len(episode.rewards) for episode in run.episodes]
    assert len(lengths) > 3
    assert 120 - 8 * len(lengths) <= sum(lengths) <= 120 - 4 * (len(lengths) - 1)
    # Between two episodes the arm was moved further than an expert's step moves it.
    before, after = run.episodes[0].states[-1], run.episodes[1].states[0]
    assert np.abs(after[45:59] - before[45:59]).max() > 0.01


def test_hands_that_fumbled_are_recorded_empty_and_come_back():
    task = CompoSuiteTask.parse("IIWA_Box_None_PickPlace")

    def lost(fumble: float) -> int:
        """How many episodes begin after a shove with the object out of a hand that held it."""
        config = CollectConfig(horizon=900, noise=0.0, shove_every=50, slip=0.0, fumble=fumble)
        count = 0
        for run in record(task, config, [0, 1, 2, 3], expert_for(task)):
            assert run.success
            for before, after in itertools.pairwise(run.episodes):
                held = (
                    before.actions[-1, 7] > 0
                    and np.linalg.norm(before.states[-1, 66:69] - before.states[-1, :3]) < 0.03
                )
                count += held and np.linalg.norm(after.states[0, 66:69] - after.states[0, :3]) > 0.032
        return count

    assert lost(0.5) >= 3 > lost(0.0)


def test_after_a_slip_open_fingers_about_the_object_close():
    task = CompoSuiteTask.parse("IIWA_Box_None_PickPlace")
    runs = record(task, CollectConfig(noise=0.0, shove_every=0, slip=0.3), [0, 2, 3], expert_for(task))
    for run in runs:
        assert len(run.episodes) > 1, "a slip starts a new episode"
        first = run.episodes[1].states[0]
        assert first[73] - first[74] > 0.015
        assert np.linalg.norm(first[66:68] - first[0:2]) < 0.05
        last = run.episodes[-1].states[-1]
        assert last[73] - last[74] < 0.01, "and the object is gripped again"
        assert run.success


def test_runs_that_must_end_solved_are_made_again_from_other_starts():
    task = CompoSuiteTask.parse("IIWA_Box_None_Shelf")
    config = CollectConfig(horizon=250, fumble=0.5)
    plain = record(task, config, [0, 1, 2, 3], expert_for(task))
    solved = record(task, dataclasses.replace(config, solved_only=True), [0, 1, 2, 3], expert_for(task))
    assert not all(run.success for run in plain)
    assert sum(run.success for run in solved) > sum(run.success for run in plain)
    for before, after in zip(plain, solved, strict=True):
        if before.success:
            np.testing.assert_array_equal(before.episodes[0].states, after.episodes[0].states)
        else:
            assert bool(after.episodes) == after.success
