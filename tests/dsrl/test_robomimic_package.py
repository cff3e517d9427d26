"""robomimic's own reader and playback on files of this project, where robomimic is installed (it is no requirement)."""

import json

import h5py
import numpy as np
import pytest

from dsrl.demos import read_demonstrations
from envs.robomimic.scene import import_robosuite
from envs.robomimic.task import POLICY_KEYS

pytest.importorskip("robomimic", reason="robomimic is not installed")


@pytest.fixture(scope="module", autouse=True)
def observation_keys():
    import_robosuite()  # before robomimic does: without OpenGL
    from robomimic.utils import obs_utils

    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": list(POLICY_KEYS)}})


def test_its_reader_gives_what_ours_does(demos):
    from robomimic.utils.dataset import SequenceDataset

    theirs = SequenceDataset(
        hdf5_path=str(demos),
        obs_keys=POLICY_KEYS,
        dataset_keys=("actions", "rewards", "dones"),
        load_next_obs=True,
        hdf5_cache_mode=None,
        filter_by_attribute="train",
    )
    ours = read_demonstrations(demos, filter_key="train")
    assert len(theirs) == len(ours)
    for row in (0, 7, len(ours) - 1):
        sample = theirs[row]
        np.testing.assert_allclose(sample["actions"][0], ours.actions[row], atol=1e-7)
        seen = np.concatenate([sample["obs"][key][0] for key in POLICY_KEYS])
        np.testing.assert_allclose(seen, ours.observations[row], atol=1e-7)


def test_its_playback_sees_the_recorded_observations_and_the_success(demos):
    from robomimic.utils import env_utils

    pytest.importorskip("robomimic.envs.env_robosuite", reason="robomimic 0.3 needs mujoco_py", exc_type=ImportError)
    with h5py.File(demos) as file:
        meta = json.loads(file["data"].attrs["env_args"])
        env = env_utils.create_env_from_metadata(
            env_meta=meta, render=False, render_offscreen=False, use_image_obs=False
        )
        solved = []
        for demo in file["data"].values():
            start = {"model": demo.attrs["model_file"], "states": demo["states"][0]}
            env.reset()
            env.reset_to(start)
            for row, state in enumerate(demo["states"]):
                seen = env.reset_to({"states": state})
                for key in POLICY_KEYS:
                    np.testing.assert_allclose(seen[key], demo[f"obs/{key}"][row], atol=5e-6, err_msg=key)
            assert env.is_success()["task"]
            env.reset()
            env.reset_to(start)
            for action in demo["executed_actions"]:
                env.step(action)
            solved.append(env.is_success()["task"])
    # A state has no rest pose, to which robosuite's controller draws the arm: a played grasp may slip.
    assert sum(solved) >= len(solved) - 1
