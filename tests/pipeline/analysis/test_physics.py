"""The simulator, put into an observed state, does what it did when the state was recorded."""

import json
import math

import numpy as np
import pytest

import envs
from envs.recording import CollectConfig, record
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import task_file, write_expert
from offline_compositional_rl_datasets.samples import read_samples, write_samples
from offline_compositional_rl_datasets.transitions import Transitions
from pipeline.analysis import physics
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.plan import generation_stages
from pipeline.loop.run import Run, open_run
from pipeline.loop.state import Iteration
from pipeline.loop.state_file import save_state
from pipeline.report import page as report
from runtime.atomic import write_json
from runtime.config import to_dict
from runtime.errors import DataError
from runtime.seeds import rng
from scripts.check_physics import main as check_physics

TASK = CompoSuiteTask.parse("IIWA_Box_None_PickPlace")


def _episode(task=TASK, steps=60, seed=3):
    """Recorded transitions of smoothly moving random actions."""
    environment = envs.make(task)
    random = np.random.default_rng(seed)
    observation, _ = environment.reset(seed=seed)
    action, rows = np.zeros(8), []
    for _ in range(steps):
        action = np.clip(0.9 * action + 0.3 * random.standard_normal(8), -1, 1)
        following, reward, terminated, _, _ = environment.step(action)
        rows.append((observation, action.astype(np.float32), reward, following, terminated))
        observation = following
    observations, actions, rewards, following, terminals = (np.array(column) for column in zip(*rows, strict=True))
    timeouts = np.zeros(steps, bool)
    return Transitions(observations, actions, rewards.astype(np.float32), following, terminals, timeouts, task)


@pytest.fixture(scope="module")
def episode():
    return _episode()


def _medians(transitions, rows=40):
    found = physics.errors(transitions, transitions.task, rows, rng("test", 0))
    return {name: float(np.median(values)) for name, values in found.items()}


def test_recorded_transitions_pass_the_check(episode):
    medians = _medians(episode)
    assert medians["arm joints"] < 1e-3
    assert medians["tool position"] < 0.5
    assert medians["object position"] < 0.5
    assert medians["reward"] < 1e-3
    assert medians["tool within s"] < 1.0
    assert medians["undetermined"] == 0
    assert medians["moved arm joints"] > 20 * medians["arm joints"], "the arm has moved by far more than the error"


@pytest.mark.parametrize("robot", ["Jaco", "Panda", "Kinova3"])
def test_recorded_transitions_of_other_robots_pass_too(robot):
    medians = _medians(_episode(CompoSuiteTask(robot, "Plate", "GoalWall", "Push"), steps=20), rows=15)
    assert medians["arm joints"] < 1e-3
    assert medians["tool within s"] < 1.0


def test_a_next_state_that_is_wrong_is_found_by_as_much_as_it_is_wrong(episode):
    following = episode.next_states.copy()
    following[:, 0] += 0.05  # the object, 50 mm
    angle = 0.1
    cosines, sines = following[:, 45].copy(), following[:, 52].copy()
    following[:, 45] = cosines * math.cos(angle) - sines * math.sin(angle)
    following[:, 52] = sines * math.cos(angle) + cosines * math.sin(angle)
    wrong = Transitions(
        episode.states, episode.actions, episode.rewards + 0.25, following, episode.terminals, episode.timeouts,
        TASK,
    )  # fmt: skip
    medians = _medians(wrong)
    assert medians["object position"] == pytest.approx(50, abs=2)
    assert medians["arm joints"] == pytest.approx(angle, abs=0.01)
    assert medians["reward"] == pytest.approx(0.25, abs=0.01)
    assert medians["tool position"] < 0.5, "what was left alone is still right"


def test_a_state_that_contradicts_itself_is_found(episode):
    states = episode.states.copy()
    states[:, 66] += 0.02  # the tool is said to be 20 mm from where the joints put it
    other = Transitions(states, *(getattr(episode, n) for n in Transitions.arrays()[1:]), TASK)
    assert _medians(other)["tool within s"] == pytest.approx(20, abs=1)


def test_rows_whose_rotation_is_not_one_are_left_out_and_counted(episode):
    states = episode.states.copy()
    states[::2, 3:7] *= 0.5
    other = Transitions(states, *(getattr(episode, n) for n in Transitions.arrays()[1:]), TASK)
    found = physics.errors(other, TASK, 60, rng("test", 0))
    assert found["undetermined"] == pytest.approx(0.5)
    assert len(found["reward"]) == 30


def test_the_command_checks_a_run_and_its_page_shows_it(tmp_path, capsys):
    data, results = tmp_path / "data", tmp_path / "results"
    paths = {"results_path": results, "data_path": data, "logs_path": tmp_path / "logs"}
    run = Run.of(load_pipeline_config(None, {"paths": paths, "num_train": 1, "experiment_type": "demo"}))
    write_json(run.folder / "config.json", to_dict(run.config))
    target = run.tasks.test[0]
    run = run.at(run.state.begin(Iteration(0, (target,), {}, None)))
    save_state(run.state_file, run.state)
    with pytest.raises(DataError, match="no iteration has generated sets"):
        check_physics(run.folder, tmp_path / "out")
    train = run.tasks.train[0]
    runs = record(train, CollectConfig(episodes=1, horizon=40), [0], lambda observations: np.zeros((1, 8)))
    write_expert(task_file(data, "expert", train), runs[0].episodes, train)
    stage = generation_stages(run, run.state.iterations[0])[0]
    write_samples(stage.output, _episode(target, steps=20), COMPOSUITE, {})
    assert len(read_samples(stage.output, target, COMPOSUITE)) == 20
    check_physics(run.folder, tmp_path / "out", rows=10)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"physics.csv", "physics.png", "physics.pdf"}
    checked = json.loads(stage.output.with_name("physics.json").read_text())
    assert checked["rows"] == 10
    assert checked["generated"]["arm joints"][2] < 1e-3
    assert f"{target}: median error arm joints" in capsys.readouterr().out
    page = report.page(open_run(run.folder))
    assert "object after one step" in page
    assert "Generated next states against the simulator" in page
