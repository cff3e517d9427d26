"""Recording data sets: kinds, parts, resumption, checks, published policies."""

import functools
import os
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from corl.policy import Policy
from envs.collect import collect, recorded_share
from envs.experts import PublishedExpert, best_policy, expert_for
from envs.qualities import config_of_kind, medium_share
from envs.recording import CollectConfig, record
from offline_compositional_rl_datasets.check import check_folder, check_task
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import (
    Episode,
    join_expert,
    read_arrays,
    read_expert,
    task_file,
    write_expert,
)
from runtime.atomic import artifact_info, commit_artifact, side_file
from runtime.errors import ConfigError, DataError, StateError
from tests.conftest import ROOT, SHARED

PUSH = CompoSuiteTask.parse("IIWA_Box_None_Push")
POLICIES = SHARED / "ppo_policies"
needs_policies = pytest.mark.skipif(not POLICIES.is_dir(), reason="needs the published policies in shared/ppo_policies")


def still(observations):
    return np.zeros((len(observations), 8), np.float32)


def test_collected_data_is_the_same_whoever_collects_it(tmp_path):
    tasks = [PUSH, CompoSuiteTask.parse("IIWA_Box_None_Trashcan")]
    config = CollectConfig(episodes=6, horizon=6)
    collect(tasks, config, tmp_path / "one", workers=1)
    collect(tasks, config, tmp_path / "two", workers=2)
    for task in tasks:
        a, b = (read_expert(task_file(tmp_path / root, "expert", task), task) for root in ("one", "two"))
        assert len(a) == 6 * 5, "six runs of six steps, each a pair less"
        np.testing.assert_array_equal(a.states, b.states)
        np.testing.assert_array_equal(a.actions, b.actions)
        folder = task_file(tmp_path / "two", "expert", task).parent
        assert sorted(path.name for path in folder.iterdir()) == ["data.hdf5", "data.hdf5.json"], "no part is left"


def test_a_finished_file_is_kept_and_another_configuration_refused(tmp_path):
    config = CollectConfig(episodes=2, horizon=4)
    collect([PUSH], config, tmp_path)
    before = task_file(tmp_path, "expert", PUSH).stat().st_mtime_ns
    collect([PUSH], config, tmp_path)
    assert task_file(tmp_path, "expert", PUSH).stat().st_mtime_ns == before
    with pytest.raises(StateError, match=r"made by another configuration \(episodes 2, not 3\)"):
        collect([PUSH], CollectConfig(episodes=3, horizon=4), tmp_path)


def test_what_a_published_policy_recorded_is_not_taken_for_the_scripted_expert(tmp_path):
    policy = tmp_path / "s0/pyt_save/state_dicts.pt"
    _network(policy)
    config = CollectConfig(episodes=2, horizon=4)
    collect([PUSH], config, tmp_path, policies={PUSH: policy})
    with pytest.raises(StateError, match=r"policy .*state_dicts.pt, not None"):
        collect([PUSH], config, tmp_path)


def test_a_killed_recording_process_is_told_and_costs_no_other_part(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, envs.collect as c\n"
        "from pathlib import Path\n"
        "from envs.recording import CollectConfig\n"
        "from offline_compositional_rl_datasets.composuite import CompoSuiteTask\n"
        "from runtime.main import run_main\n"
        "record = c.record\n"
        "c.record = lambda task, config, numbers, expert: (\n"
        "    record(task, config, numbers, expert) if numbers[0] == 0 else os._exit(9))\n"
        f"task, config = CompoSuiteTask.parse({PUSH.name!r}), CollectConfig(episodes=10, horizon=6)\n"
        "if __name__ == '__main__':\n"
        f"    run_main(lambda: c.collect([task], config, Path({str(tmp_path)!r})))\n"
    )
    done = subprocess.run(
        [sys.executable, script], env=_environment(), check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: a recording process was killed"), done.stderr
    parts = task_file(tmp_path, "expert", PUSH).parent / ".data_parts"
    assert [path.name for path in parts.glob("0*.hdf5")] == ["000000.hdf5"]


def test_the_share_of_random_actions_is_not_sought_again_for_what_is_recorded(tmp_path):
    path = task_file(tmp_path, "medium", PUSH)
    plain = CollectConfig(episodes=2, horizon=4, linger=4, shove_every=0, slip=0.0)
    assert recorded_share(path, plain, None) is None
    collect([PUSH], replace(plain, random_share=(0.25, 0.25)), tmp_path, dataset_type="medium")
    assert recorded_share(path, plain, None) == (0.25, 0.25)
    assert recorded_share(path, replace(plain, seed=1), None) is None, "another start is another set"

    def never(observations):
        raise AssertionError("the expert was asked")

    known = functools.partial(recorded_share, path, policy=None)
    found = config_of_kind("medium", PUSH, plain, never, known)
    assert found.random_share == (0.25, 0.25)


def test_a_killed_collection_goes_on_with_the_parts_that_were_done(tmp_path):
    config = CollectConfig(episodes=12, horizon=6)
    path = task_file(tmp_path, "expert", PUSH)
    program = (
        "import os, envs.collect as c\n"
        "from pathlib import Path\n"
        "from envs.recording import CollectConfig\n"
        "from offline_compositional_rl_datasets.composuite import CompoSuiteTask\n"
        "c._join = lambda *_: os._exit(9)\n"
        f"if __name__ == '__main__':\n"
        f"    task, folder = CompoSuiteTask.parse({PUSH.name!r}), Path({str(tmp_path)!r})\n"
        "    c.collect([task], CollectConfig(episodes=12, horizon=6), folder)\n"
    )
    script = tmp_path / "killed.py"
    script.write_text(program)
    assert subprocess.run([sys.executable, script], env=_environment(), check=False).returncode == 9
    parts = sorted((path.parent / ".data_parts").glob("*.hdf5"))
    assert len(parts) == 3
    assert not path.exists()
    info = artifact_info(parts[0])
    marked = Episode(np.zeros((4, 77)), np.full((4, 8), 0.5), np.zeros(4), np.zeros(4), terminated=False)
    commit_artifact(parts[0], lambda temporary: write_expert(temporary, [marked], PUSH), info)
    parts[1].unlink()
    collect([PUSH], config, tmp_path)
    actions = read_arrays(path, COMPOSUITE)["actions"]
    assert (actions[:4] == 0.5).all(), "a part that was done is taken as it is"
    whole = tmp_path / "whole"
    collect([PUSH], config, whole)
    rest = read_arrays(task_file(whole, "expert", PUSH), COMPOSUITE)["actions"][30:]
    np.testing.assert_array_equal(actions[4:], rest, err_msg="the others are as ever")


def _environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_collection_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="episodes 0"):
        CollectConfig(episodes=0)
    with pytest.raises(ConfigError, match="noise"):
        CollectConfig(noise=-1)
    with pytest.raises(ConfigError, match="random_share"):
        CollectConfig(random_share=(0.0, 1.5))
    with pytest.raises(ConfigError, match="expected one of expert, medium"):
        config_of_kind("best", PUSH, CollectConfig(), still)


def test_shoves_do_not_end_the_runs_of_push_by_lifting_and_they_stay_at_its_goal():
    task = CompoSuiteTask.parse("IIWA_Plate_GoalWall_Push")
    config = CollectConfig(horizon=600)
    runs = record(task, config, range(6), expert_for(task))
    assert sum(run.success for run in runs) >= 3, "one, where shoves lift it"
    solved = [sum(episode.successes.sum() for episode in run.episodes) for run in runs if run.success]
    assert np.mean(solved) > config.linger, "recorded steps at the goal"


@pytest.mark.parametrize(("objective", "longer"), [("PickPlace", True), ("Trashcan", False)])
def test_runs_stay_longer_where_the_object_is_held_at_its_goal(objective, longer):
    task, config = CompoSuiteTask.parse(f"IIWA_Box_None_{objective}"), CollectConfig(horizon=600)
    solved = [
        sum(episode.successes.sum() for episode in run.episodes)
        for run in record(task, config, [0, 1], expert_for(task))
    ]
    assert min(solved) > 0
    assert (np.mean(solved) > 1.5 * config.linger) == longer


def test_random_data_ignores_the_expert_and_holds_its_actions():
    config = config_of_kind("random", PUSH, CollectConfig(episodes=1, horizon=30, noise=0.0), still)
    (run,) = record(PUSH, config, [0], still)
    actions = run.episodes[0].actions
    assert len(actions) == 30, "no shoves, no early end"
    np.testing.assert_array_equal(actions[:10], np.repeat(actions[:1], 10, axis=0))
    assert np.abs(actions[10] - actions[9]).max() > 0.01
    assert np.abs(actions).max() <= 1


def test_replay_data_goes_from_random_to_better():
    config = CollectConfig(episodes=5, random_share=(1.0, 0.2))
    assert [config.share_of(i) for i in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_medium_data_is_between_an_expert_that_always_and_one_that_never_succeeds():
    # Nobody succeeds within three steps, so the search ends at the expert itself.
    assert medium_share(PUSH, CollectConfig(horizon=3, shove_every=0, slip=0.0), still) == 0.0


def test_files_are_joined_row_by_row(tmp_path):
    for name in ("a", "b"):
        collect([PUSH], CollectConfig(episodes=1, horizon=5, seed=ord(name)), tmp_path / name)
    parts = [task_file(tmp_path / name, "expert", PUSH) for name in ("a", "b")]
    join_expert(parts, tmp_path / "joined.hdf5", COMPOSUITE)
    joined = read_arrays(tmp_path / "joined.hdf5", COMPOSUITE)
    for key, array in joined.items():
        single = np.concatenate([read_arrays(part, COMPOSUITE)[key] for part in parts])
        np.testing.assert_array_equal(array, single, err_msg=key)
    assert joined["timeouts"].sum() == 2


def test_a_good_file_is_fit_for_use_and_a_missing_one_is_named(tmp_path):
    collect([PUSH], CollectConfig(episodes=2, horizon=5), tmp_path)
    good, missing = check_folder(tmp_path, "expert", [PUSH, CompoSuiteTask.parse("IIWA_Box_None_Shelf")])
    assert (good.rows, good.episodes, good.faults) == (10, 2, ())
    rewards = read_arrays(good.path, COMPOSUITE)["rewards"]
    assert good.mean_return == pytest.approx(rewards.sum() / 2)
    assert (good.run_success, good.run_return) == (0.0, pytest.approx(rewards.sum() / 2)), "without shoves"
    assert missing.faults == ("missing",)
    with pytest.raises(DataError, match="no such folder"):
        check_folder(tmp_path / "none", "expert", [PUSH])


@pytest.mark.parametrize(
    ("key", "row", "value", "fault"),
    [
        ("observations", 3, np.nan, "row 3: observation is not finite"),
        ("actions", 2, 1.5, "row 2: action outside"),
        ("rewards", 4, -1.0, "row 4: reward outside"),
        ("timeouts", slice(None), False, "cut off"),
        ("observations", (2, 10), 0.5, "row 2: quaternion at 10:14 of the state"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path, key, row, value, fault):
    collect([PUSH], CollectConfig(episodes=1, horizon=5), tmp_path)
    with h5py.File(task_file(tmp_path, "expert", PUSH), "r+") as file:
        file[key][row] = value
    assert fault in check_task(tmp_path, "expert", PUSH).faults[0]


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("rewards", np.float32(1.0), "rewards has shape ()"),
        ("rewards", h5py.Empty("f"), "rewards has shape None"),
        ("observations", np.float32(1.0), "observations has shape ()"),
        ("terminals", np.full(5, np.nan), "row 0: terminals is neither 0 nor 1"),
        ("successes", np.array([0.0, 1.0, 7.0, 0.0, 0.0]), "row 2: successes is neither 0 nor 1"),
        ("actions", np.full((5, 8), b"x"), "actions has dtype |S1"),
    ],
)
def test_an_array_of_another_kind_is_told_and_not_read(tmp_path, key, value, fault):
    collect([PUSH], CollectConfig(episodes=1, horizon=5), tmp_path)
    path = task_file(tmp_path, "expert", PUSH)
    with h5py.File(path, "r+") as file:
        del file[key]
        file[key] = value
    assert fault in check_task(tmp_path, "expert", PUSH).faults[0]
    if "neither" not in fault:
        side_file(path).unlink()  # a file from elsewhere, whose bytes nobody vouches for
        with pytest.raises(DataError, match=f"{key} has|observations"):
            read_expert(path, PUSH)


def test_a_file_of_another_task_or_of_no_format_is_told(tmp_path):
    collect([PUSH], CollectConfig(episodes=1, horizon=5), tmp_path)
    other = CompoSuiteTask.parse("IIWA_Box_None_Shelf")
    target = task_file(tmp_path, "expert", other)
    target.parent.mkdir()
    target.write_bytes(task_file(tmp_path, "expert", PUSH).read_bytes())
    assert "task ids are not those" in check_task(tmp_path, "expert", other).faults[0]
    target.write_bytes(b"nothing")
    assert "not a readable HDF5 file" in check_task(tmp_path, "expert", other).faults[0]


def _network(path):
    """A state dict of a published policy's form, with small random weights."""
    generator = torch.Generator().manual_seed(0)
    sizes = {
        (0, "post"): [(14, 32)],
        (1, "pre"): [(14, 32)],
        (1, "post"): [(64, 32)],
        (2, "pre"): [(17, 64), (64, 64)],
        (2, "post"): [(96, 64)],
        (3, "pre"): [(32, 64), (64, 64), (64, 64)],
        (3, "post"): [(128, 8)],
    }
    model = {}
    for (node, part), layers in sizes.items():
        for module in range(4):
            for i, (inputs, outputs) in enumerate(layers):
                stem = f"pi.mu_net._module_list.{node}.{part}_interface.{module}.{2 * i}"
                model[f"{stem}.weight"] = 0.3 * torch.randn(outputs, inputs, generator=generator)
                model[f"{stem}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model}, path)
    return model


def test_a_published_policy_acts_through_the_modules_of_its_task(tmp_path):
    path = tmp_path / "default_224/comp/s0/pyt_save/state_dicts.pt"
    model = _network(path)
    task = CompoSuiteTask.parse("Panda_Plate_GoalWall_Trashcan")  # positions 2, 2, 3, 3 of the one-hots
    state = np.random.default_rng(0).normal(size=(5, COMPOSUITE.state_dim)).astype(np.float32)

    def layer(x, node, part, module, i):
        stem = f"pi.mu_net._module_list.{node}.{part}_interface.{module}.{i}"
        return np.tanh(x @ model[f"{stem}.weight"].numpy().T + model[f"{stem}.bias"].numpy())

    obj, obstacle, goal, robot = np.split(state, [14, 28, 45], axis=1)
    x = layer(obstacle, 0, "post", 3, 0)
    x = layer(np.concatenate([x, layer(obj, 1, "pre", 2, 0)], 1), 1, "post", 2, 0)
    x = layer(np.concatenate([x, layer(layer(goal, 2, "pre", 3, 0), 2, "pre", 3, 2)], 1), 2, "post", 3, 0)
    arm = layer(layer(layer(robot, 3, "pre", 2, 0), 3, "pre", 2, 2), 3, "pre", 2, 4)
    expected = layer(np.concatenate([x, arm], 1), 3, "post", 2, 0)
    np.testing.assert_allclose(PublishedExpert(path, task)(state), expected, atol=1e-6)


def test_a_published_policy_is_no_checkpoint_of_a_trained_one(tmp_path):
    _network(tmp_path / "published.pt")
    with pytest.raises(DataError, match=r"lacks algorithm, .* expected a checkpoint of a trained policy"):
        Policy.load(tmp_path / "published.pt", COMPOSUITE)


def test_a_file_that_is_no_published_policy_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such checkpoint"):
        PublishedExpert(tmp_path / "none.pt", PUSH)
    (tmp_path / "text.pt").write_text("no")
    with pytest.raises(DataError, match="not a readable checkpoint"):
        PublishedExpert(tmp_path / "text.pt", PUSH)
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="not a published policy"):
        PublishedExpert(tmp_path / "other.pt", PUSH)
    with pytest.raises(DataError, match="no published policy"):
        best_policy(tmp_path, PUSH)


@needs_policies
def test_a_published_policy_reaches_its_published_return():
    task = CompoSuiteTask.parse("IIWA_Box_None_PickPlace")
    path = POLICIES / "default_224/comp/s2/pyt_save/state_dicts.pt"
    config = CollectConfig(noise=0.0, shove_every=0, slip=0.0, linger=500)
    (run,) = record(task, config, [0], PublishedExpert(path, task))
    assert run.success
    assert run.total_reward == pytest.approx(431, abs=20)  # mean of 6 episodes of the original
