import subprocess
import sys
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import SAC

from dsrl.behavior_cloning import checkpoint_file, train
from dsrl.chunks import chunk_rows
from dsrl.collect_demos import CollectConfig, collect, fetch
from dsrl.config import BCConfig, DSRLConfig, load_task_config
from dsrl.demos import read_demonstrations
from dsrl.denoising import FastSampler, NoisePredictor, cosine_alpha_bar, ddim, ddim_times, loss
from dsrl.diffusion_policy import Checkpoint, DiffusionPolicy
from dsrl.noise_aliasing import NoiseAliasingSAC
from dsrl.noise_env import DSRLEnvWrapper, actor_noise, load_actor, open_noise_environments
from dsrl.normalizer import MinMax, feature_columns, features
from dsrl.rollout import episode_seeds, open_environments, run_episodes, wilson
from dsrl.steering import BEST, make_sac, steer, warm_start
from envs.robomimic import RobomimicEnv
from envs.robomimic_task import POLICY_KEYS, RobomimicTask
from runtime.errors import ConfigError, DataError, StateError

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
TINY = {"hidden_dims": (32, 32), "epochs": 4, "save_every": 2, "warmup_epochs": 1, "device": "cpu", "batch_size": 4}


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Four recorded demonstrations of Lift."""
    path = tmp_path_factory.mktemp("demos") / "low_dim.hdf5"
    collect(RobomimicTask.standard("lift"), CollectConfig(num_demos=4), path)
    return path


@pytest.fixture(scope="module")
def cloned(demos, tmp_path_factory):
    """A checkpoint of a policy cloned for a few steps."""
    folder = tmp_path_factory.mktemp("bc")
    task = RobomimicTask.standard("lift")
    return train(read_demonstrations(demos), task, BCConfig(save_dir=str(folder), **TINY), device=CPU)


@pytest.fixture
def policy(cloned):
    return DiffusionPolicy.load(cloned, ddim_steps=3)


def _changed(path, to, change):
    to.write_bytes(path.read_bytes())
    with h5py.File(to, "r+") as file:
        change(file)
    return to


# Demonstrations


def test_a_recorded_file_has_the_groups_of_the_published_ones(demos):
    with h5py.File(demos) as file:
        assert RobomimicTask.from_env_args(file["data"].attrs["env_args"], "x") == RobomimicTask.standard("lift")
        assert sorted(file["data"]) == [f"demo_{i}" for i in range(4)]
        assert file["data"].attrs["total"] == sum(file[f"data/demo_{i}"].attrs["num_samples"] for i in range(4))
        demo = file["data/demo_1"]
        assert demo["states"].shape[1] == 32
        assert demo["actions"].dtype == demo["states"].dtype == np.float64
        assert np.abs(demo["actions"][:]).max() <= 1
        np.testing.assert_array_equal(demo["dones"][:], demo["rewards"][:] > 0)
        assert 1 <= demo["rewards"][:].sum() <= 6, "it goes on for five steps after the success"
        np.testing.assert_allclose(np.diff(demo["states"][:, 0]), 0.05, atol=1e-9)
        assert "<mujoco" in demo.attrs["model_file"]
        for key in POLICY_KEYS:
            np.testing.assert_array_equal(demo[f"obs/{key}"][1:], demo[f"next_obs/{key}"][:-1])
        assert not np.array_equal(demo["actions"], demo["executed_actions"]), "what is recorded is the way back"


def test_demonstrations_are_the_same_whoever_records_them_and_are_kept(demos, tmp_path):
    path = tmp_path / "again.hdf5"
    task = RobomimicTask.standard("lift")
    collect(task, CollectConfig(num_demos=4), path, workers=2)
    with h5py.File(demos) as one, h5py.File(path) as two:
        for name in one["data"]:
            np.testing.assert_array_equal(one[f"data/{name}/states"], two[f"data/{name}/states"])
    before = path.stat().st_mtime_ns
    collect(task, CollectConfig(num_demos=4), path)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(StateError, match="made by another configuration"):
        collect(task, CollectConfig(num_demos=5), path)


def test_the_loader_sorts_by_number_decodes_masks_and_bears_holes(demos, tmp_path):
    def renumber(file):
        file["data"].move("demo_1", "demo_10")
        file.create_dataset("mask/some", data=np.array([b"demo_10", b"demo_2"]))
        for name in file["data"]:
            del file[f"data/{name}/next_obs"]

    path = _changed(demos, tmp_path / "holes.hdf5", renumber)
    assert read_demonstrations(path).names == ("demo_0", "demo_2", "demo_3", "demo_10")
    some = read_demonstrations(path, filter_key="some")
    assert some.names == ("demo_2", "demo_10")
    assert len(some) == some.lengths.sum() == len(some.observations)
    assert some.observations.shape[1] == 19
    assert read_demonstrations(path, num_demos=1).names == ("demo_0",)


def test_a_file_without_masks_is_read_whole(demos, tmp_path):
    path = _changed(demos, tmp_path / "bare.hdf5", lambda file: file.__delitem__("mask"))
    assert len(read_demonstrations(path).names) == 4
    with pytest.raises(DataError, match="no mask 'train'; found none at all"):
        read_demonstrations(path, filter_key="train")


def test_faults_of_a_file_are_named(demos, tmp_path):
    def spoil(name, change, match, **options):
        with pytest.raises(DataError, match=match):
            read_demonstrations(_changed(demos, tmp_path / name, change), **options)

    spoil("a", lambda f: f["data"].attrs.__delitem__("env_args"), "env_args")
    spoil("b", lambda f: f["data/demo_2/obs"].__delitem__("object"), "demo_2 has no 'obs/object'; found robot0")
    spoil("c", lambda f: f["data/demo_0/actions"].__setitem__((3, 1), np.nan), "actions of demo_0 are not finite")
    spoil("d", lambda f: None, "no mask 'best'; found train", filter_key="best")
    spoil("e", lambda f: None, "4 demonstrations, but num_demos is 9", num_demos=9)
    (tmp_path / "f").write_bytes(demos.read_bytes()[:5000])
    with pytest.raises(DataError, match="not a whole HDF5 file"):
        read_demonstrations(tmp_path / "f")
    with pytest.raises(DataError, match="no such file"):
        read_demonstrations(tmp_path / "g")


def test_what_cannot_be_fetched_is_said_and_nothing_is_left(tmp_path):
    with pytest.raises(DataError, match="cannot be fetched from here"):
        fetch("lift", tmp_path / "low_dim.hdf5", (tmp_path / "absent-{task}.hdf5").as_uri())
    assert not any(tmp_path.iterdir())


def test_what_is_fetched_is_checked_to_be_a_data_set(demos, tmp_path):
    fetch("lift", tmp_path / "ph" / "low_dim.hdf5", demos.as_uri())
    assert read_demonstrations(tmp_path / "ph" / "low_dim.hdf5").names[0] == "demo_0"
    (tmp_path / "page.html").write_text("moved")
    with pytest.raises(DataError, match="not a whole HDF5 file"):
        fetch("lift", tmp_path / "other.hdf5", (tmp_path / "page.html").as_uri())
    assert not (tmp_path / "other.hdf5").exists()


# Samples


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 6))
def test_a_chunk_never_leaves_its_episode(lengths, horizon):
    lengths = np.array(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    rows, chunks = chunk_rows(lengths, horizon)
    assert len(rows) == lengths.sum()
    assert (episode[chunks] == episode[rows][:, None]).all()
    np.testing.assert_array_equal(chunks[:, 0], rows)
    step = np.diff(chunks, axis=1)
    assert ((step == 1) | (step == 0)).all()
    last = np.cumsum(lengths) - 1
    assert (np.isin(chunks[:, :-1][step == 0], last)).all(), "only an episode's last action is repeated"
    if lengths.max() >= horizon:
        rows, chunks = chunk_rows(lengths, horizon, pad=False)
        assert len(rows) == np.maximum(lengths - horizon + 1, 0).sum()
        assert (np.diff(chunks, axis=1) == 1).all()
        assert (episode[chunks] == episode[rows][:, None]).all()


def test_min_max_maps_the_data_to_the_unit_box_and_leaves_constants_unscaled():
    data = torch.tensor([[0.0, 5.0, 2.0], [4.0, 5.0, 2.0 + 2e-5]])
    scale = MinMax.fit(data)
    normal = scale.normalize(data)
    torch.testing.assert_close(normal[:, 0], torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(normal[:, 1], torch.zeros(2))
    assert normal[:, 2].abs().max() < 1e-4, "an almost constant dimension is not magnified"
    torch.testing.assert_close(scale.normalize(torch.tensor([[2.0, 5.5, 2.0]]))[0, 1], torch.tensor(0.5))
    torch.testing.assert_close(scale.denormalize(normal), data)


def test_six_numbers_do_not_depend_on_the_sign_of_the_quaternion():
    task = RobomimicTask.standard("can")
    columns = feature_columns(task, POLICY_KEYS, "six")
    assert columns == slice(19, 23)
    observation = torch.randn(5, 23)
    observation[:, columns] /= observation[:, columns].norm(dim=1, keepdim=True)
    flipped = observation.clone()
    flipped[:, columns] *= -1
    six = features(observation, columns, "six")
    assert six.shape == (5, 25)
    torch.testing.assert_close(six, features(flipped, columns, "six"))
    x, y = six[:, 19:22], six[:, 22:25]
    torch.testing.assert_close((x * y).sum(dim=1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(5))
    assert features(observation, columns, "drop").shape == (5, 19)
    assert feature_columns(RobomimicTask.standard("lift"), POLICY_KEYS, "six") is None


# Denoising


def test_the_schedule_is_the_squared_cosine():
    alpha_bar = cosine_alpha_bar(100)
    for t, value in ((0, 0.9994), (84, 0.0537), (90, 0.0195)):
        assert abs(float(alpha_bar[t]) - value) < 1e-4
    assert float(alpha_bar[99]) == pytest.approx(2.4e-7, rel=0.05)


def test_sampling_times():
    assert ddim_times(100, 10, "leading") == list(range(90, -1, -10))
    assert ddim_times(100, 10, "trailing") == list(range(99, 0, -10))
    with pytest.raises(ConfigError, match="ddim_steps 101"):
        ddim_times(100, 101, "leading")


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_with_the_true_noise_sampling_finds_the_data(spacing):
    """For data at one point x0 the optimal predictor is known, and every chain ends there."""
    alpha_bar = cosine_alpha_bar(100)
    x0 = torch.tensor([[0.3, -0.7]], dtype=torch.float64)

    def predict(x, t, observation):
        a = alpha_bar[t][:, None]
        return (x - a.sqrt() * x0) / (1 - a).sqrt()

    for eta in (0.0, 1.0):
        w = torch.randn(4, 2, dtype=torch.float64)
        result = ddim(predict, w, torch.zeros(4, 1), alpha_bar, ddim_times(100, 10, spacing), eta)
        torch.testing.assert_close(result, x0.expand(4, 2), atol=1e-9, rtol=0)


@pytest.mark.parametrize("widths", [(32, 32, 32), (32, 16)])
def test_the_fast_sampler_is_the_plain_one(widths):
    torch.manual_seed(0)
    network = NoisePredictor(28, 19, widths).requires_grad_(False)
    alpha_bar, times = cosine_alpha_bar(100), ddim_times(100, 10, "leading")
    w, seen = torch.randn(6, 28), torch.randn(6, 19)
    fast = FastSampler(network, alpha_bar, times)
    torch.testing.assert_close(fast(w, seen), ddim(network, w, seen, alpha_bar, times), atol=1e-4, rtol=1e-4)
    assert torch.equal(fast(w, seen), fast(w, seen)), "the same noise, the same chunk"
    assert fast(w, seen).abs().max() <= 1


def test_a_predictor_of_zero_has_the_loss_of_the_noise():
    alpha_bar = cosine_alpha_bar(100).float()
    zero = loss(lambda x, t, o: torch.zeros_like(x), torch.rand(4000, 5), torch.zeros(4000, 1), alpha_bar)
    assert abs(float(zero) - 1) < 0.05


# Cloning


def test_a_killed_training_ends_as_one_that_was_not(demos, cloned, tmp_path):
    half = checkpoint_file(cloned.parent, 2)
    (tmp_path / half.name).write_bytes(half.read_bytes())
    config = BCConfig(save_dir=str(tmp_path), **TINY)
    resumed = Checkpoint.read(train(read_demonstrations(demos), RobomimicTask.standard("lift"), config, device=CPU))
    whole = Checkpoint.read(cloned)
    for part in ("model", "ema"):
        for name, value in whole.contents[part].items():
            torch.testing.assert_close(resumed.contents[part][name], value, rtol=0, atol=0)
    with pytest.raises(StateError, match=r"made with other settings \(batch_size\)"):
        other = BCConfig(save_dir=str(tmp_path), **{**TINY, "batch_size": 8})
        train(read_demonstrations(demos), RobomimicTask.standard("lift"), other, device=CPU)


def test_a_checkpoint_carries_all_that_acting_needs(cloned):
    checkpoint = Checkpoint.read(cloned)
    assert checkpoint.contents["obs_keys"] == list(POLICY_KEYS)
    assert checkpoint.args["pred_horizon"] == 4
    assert checkpoint.contents["data"]["demonstrator"] == "scripted"
    policy = DiffusionPolicy(checkpoint, ddim_steps=3)
    last = DiffusionPolicy(checkpoint, ddim_steps=3, use_ema=False)
    observation, w = np.random.default_rng(0).normal(size=(3, 19)), np.ones((3, 28), np.float32)
    actions = policy.act(observation, w)
    assert actions.shape == (3, 28)
    assert np.abs(actions).max() <= 1
    np.testing.assert_array_equal(actions, policy.act(observation, w))
    assert not np.array_equal(actions, last.act(observation, w)), "the averaged weights are others"


def test_faults_of_a_checkpoint_are_named(cloned, tmp_path, policy):
    with pytest.raises(DataError, match="no such checkpoint"):
        Checkpoint.read(tmp_path / "state_1.pt")
    (tmp_path / "cut.pt").write_bytes(cloned.read_bytes()[:3000])
    with pytest.raises(DataError, match="not a whole checkpoint"):
        Checkpoint.read(tmp_path / "cut.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="not a checkpoint of a diffusion policy"):
        Checkpoint.read(tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="a policy of the task 'lift', not of 'can'"):
        Checkpoint.read(cloned).expect_task("can")
    contents = torch.load(cloned, weights_only=True)
    contents["args"]["hidden_dims"] = [16]
    torch.save(contents, tmp_path / "wrong.pt")
    with pytest.raises(DataError, match="do not fit its own arguments"):
        DiffusionPolicy.load(tmp_path / "wrong.pt")
    with pytest.raises(DataError, match="not finite"):
        policy.to_actions(torch.full((1, 28), float("nan")))


def test_a_small_training_learns(demos, tmp_path):
    config = BCConfig(
        save_dir=str(tmp_path),
        **{
            **TINY,
            "hidden_dims": (128, 128),
            "epochs": 250,
            "precision": "float32",
            "learning_rate": 3e-3,
            "batch_size": 32,
        },
    )
    data = read_demonstrations(demos)
    policy = DiffusionPolicy.load(train(data, RobomimicTask.standard("lift"), config, device=CPU))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        w = torch.randn(len(data), 28).numpy()
    error = np.abs(policy.act(data.observations, w)[:, :7] - data.actions).mean()
    guess = np.abs(data.actions - np.median(data.actions, axis=0)).mean()
    assert error < 0.7 * guess, "far better than the best constant action"


# Episodes and steering


def test_an_episode_does_not_depend_on_those_beside_it(policy):
    seeds = episode_seeds(0, 3)
    with open_environments(policy, 3, horizon=8) as together, open_environments(policy, 1, horizon=8) as alone:
        a, b = run_episodes(policy, together, seeds), run_episodes(policy, alone, seeds)
    np.testing.assert_array_equal(a.successes, b.successes)
    np.testing.assert_array_equal(a.decisions, [2, 2, 2])
    assert [row["seed"] for row in a.rows()] == seeds


def test_the_interval_is_wilson_s():
    low, high = wilson(49, 50)
    assert (round(low, 3), round(high, 3)) == (0.895, 0.996)


def test_the_noise_environment_keeps_the_gymnasium_contract(policy):
    env = DSRLEnvWrapper(RobomimicEnv("lift", chunk=4, horizon=10), policy, 1.5)
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    assert env.action_space == gymnasium.spaces.Box(-1.5, 1.5, (28,), np.float32)
    rewards = []
    ended = False
    before = [value.clone() for value in policy.network.state_dict().values()]
    while not ended:
        seen, reward, terminated, truncated, info = env.step(env.action_space.sample())
        rewards.append(reward)
        ended = terminated or truncated
    assert rewards == [-4, -4, -2], "minus one for every step that is not solved, and none beyond the horizon"
    assert truncated
    for value, old in zip(policy.network.state_dict().values(), before, strict=True):
        assert torch.equal(value, old)
    assert info["chunk"].shape == (28,)


def _open(policy, **options):
    settings = {"workers": False, "horizon": 12, "until_success": True, "action_magnitude": 1.0, "seed": 0}
    return open_noise_environments(policy, 2, **{**settings, **options})


def _config(tmp_path, **options):
    sizes = {"initial_steps": 60, "train_steps": 40, "utd": 2, "num_envs": 2, "horizon": 12, "hidden_dims": (16, 16)}
    trials = {"eval_every": 20, "eval_episodes": 2, "fresh_episodes": 2, "batch_size": 16, "least_base_rate": 0.0}
    return DSRLConfig(save_dir=str(tmp_path), device="cpu", **{**sizes, **trials, **options})


def test_the_batched_environment_is_the_single_one(policy):
    batched = _open(policy)
    single = DSRLEnvWrapper(RobomimicEnv("lift", chunk=4, horizon=12), policy)
    batched.reset()
    # The wrapper's first episode is the first environment's: both are seeded by 0.
    seen, _ = single.reset(seed=0)
    batched.venv.seed(0)
    assert np.allclose(batched.reset()[0], seen)
    for step in range(3):
        w = np.random.default_rng(step).uniform(-1, 1, (2, 28)).astype(np.float32)
        seen, reward, _, truncated, info = single.step(w[0])
        _, rewards, dones, infos = batched.step(w)
        np.testing.assert_allclose(infos[0]["chunk"], info["chunk"], atol=1e-5)
        assert rewards[0] == reward
    assert dones.all()
    assert infos[0]["TimeLimit.truncated"] is truncated is True
    np.testing.assert_allclose(infos[0]["terminal_observation"], seen, atol=1e-4)
    assert batched.env_steps == 2 * 12


@pytest.mark.parametrize("algorithm", ["sac", "na"])
def test_the_warm_start_stores_what_the_algorithm_learns_from(policy, tmp_path, algorithm):
    env = _open(policy)
    model = make_sac(policy, env, _config(tmp_path, algorithm=algorithm))
    solved, finished = warm_start(model, env, 48, np.random.default_rng(0))
    buffer = model.replay_buffer
    assert (buffer.size(), finished, env.env_steps) == (6, 4, 48)
    assert 0 <= solved <= finished
    w = np.random.default_rng(0).standard_normal((2, 28), dtype=np.float32).clip(-1, 1)
    stored = buffer.actions[0]
    if algorithm == "sac":
        np.testing.assert_allclose(stored, w, atol=1e-6)
    else:
        chunk = policy.denoise(torch.from_numpy(buffer.observations[0]), torch.from_numpy(w)).numpy()
        np.testing.assert_allclose(stored, chunk, atol=1e-4)
    assert (buffer.rewards[:3] == -4).all()
    assert buffer.dones[2].all()
    assert buffer.timeouts[2].all(), "a time limit is not the end of the task"


@pytest.mark.parametrize("algorithm", ["sac", "na"])
def test_steering_writes_a_model_that_stock_sac_loads(policy, tmp_path, algorithm):
    result = steer(policy, _config(tmp_path, algorithm=algorithm))
    assert result["use"] in ("cloned", "steered", "steered_deterministic")
    assert result["cloned"]["episodes"] == 2
    model = SAC.load(tmp_path / BEST)
    w, _ = model.predict(np.zeros((1, 19), np.float32))
    assert w.shape == (1, 28)
    choose = load_actor(tmp_path / BEST, policy, deterministic=True)
    np.testing.assert_allclose(
        choose(torch.zeros(1, 19), [0], 0).numpy(), model.predict(np.zeros((1, 19)), deterministic=True)[0], atol=1e-6
    )
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(rows) >= 2
    with pytest.raises(DataError, match="no such SAC model"):
        load_actor(tmp_path / "none.zip", policy)
    (tmp_path / "bad.zip").write_text("no")
    with pytest.raises(DataError, match="not a SAC model"):
        load_actor(tmp_path / "bad.zip", policy)


def test_a_policy_that_solves_nothing_is_not_steered(policy, tmp_path):
    with pytest.raises(DataError, match="too little to learn from"):
        steer(policy, _config(tmp_path, least_base_rate=0.9))


def test_one_update_of_noise_aliasing_follows_its_equations(policy, tmp_path):
    """Against the losses written out on the same batch and random numbers."""
    model = make_sac(policy, _open(policy), _config(tmp_path, algorithm="na"))
    assert isinstance(model, NoiseAliasingSAC)
    warm_start(model, model.env, 48, np.random.default_rng(0))
    data = model.replay_buffer.sample(8)
    alpha = torch.tensor(0.3)
    torch.manual_seed(5)
    with torch.no_grad():
        w, log_prob = model.actor.action_log_prob(data.next_observations)
        value = torch.min(
            *model.action_critic_target(data.next_observations, policy.denoise(data.next_observations, w))
        )
        target = data.rewards + (1 - data.dones) * 0.99 * (value - 0.3 * log_prob[:, None])
        q1, q2 = model.action_critic(data.observations, data.actions)
        expected = ((q1 - target) ** 2).mean() / 2 + ((q2 - target) ** 2).mean() / 2
    torch.manual_seed(5)
    torch.testing.assert_close(model._update_action_critic(data, alpha), expected)
    before = [model._distill(data.observations) for _ in range(60)]
    assert torch.stack(before[-10:]).mean() < torch.stack(before[:10]).mean(), "Q_W approaches Q_A"


def test_an_actor_s_episode_has_its_own_random_numbers(policy, tmp_path):
    model = make_sac(policy, _open(policy), _config(tmp_path))
    seen = torch.zeros(2, 19)
    both = actor_noise(model, deterministic=False)(seen, [4, 9], 0)
    alone = actor_noise(model, deterministic=False)(seen[:1], [9], 0)
    torch.testing.assert_close(both[1], alone[0])
    assert both.abs().max() <= 1
    assert not torch.equal(both[0], both[1])


# Commands


def test_flags_go_over_the_task_s_file_over_defaults(tmp_path):
    config = load_task_config(BCConfig, "bc", "square", None, {"epochs": 7, "seed": None})
    assert (config.epochs, config.time_dim, config.hidden_dims) == (7, 32, (1024, 1024, 1024))
    (tmp_path / "mine.yaml").write_text("epoch: 3\n")
    with pytest.raises(ConfigError, match="unknown key 'epoch'; did you mean 'epochs'"):
        load_task_config(BCConfig, "bc", "lift", tmp_path / "mine.yaml", {})
    with pytest.raises(ConfigError, match="utd 0"):
        DSRLConfig(utd=0)
    with pytest.raises(ConfigError, match="hidden_dims"):
        BCConfig(hidden_dims=())


def _run(*command, cwd=ROOT):
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_the_commands_run_one_after_the_other(demos, tmp_path):
    small = ["--hidden_dims", 32, 32, "--epochs", 2, "--device", "cpu"]
    bc = _run("-m", "dsrl.train_bc", "--task", "lift", "--data_path", demos, "--save_dir", tmp_path, *small)
    assert bc.returncode == 0, bc.stderr
    checkpoint = tmp_path / "state_2.pt"
    # From the folder, as a plain script.
    few = ["--n_episodes", 2, "--horizon", 8, "--ddim_steps", 2]
    done = _run("evaluate.py", "--checkpoint", checkpoint, *few, cwd=ROOT / "dsrl")
    assert done.returncode == 0, done.stderr
    assert "of 2 solved" in done.stdout
    assert (tmp_path / "evaluation" / "episodes.csv").read_text().count("\n") == 3
    wrong = _run("-m", "dsrl.evaluate", "--checkpoint", checkpoint, "--task", "square")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "not of 'square'" in wrong.stderr


def test_a_file_can_be_looked_into(demos):
    done = _run("-m", "dsrl.inspect_data", "--data_path", demos)
    assert done.returncode == 0, done.stderr
    for part in ("4 demonstrations", "obs/object", "(10,)", "states", "masks: train (4), valid (0)"):
        assert part in done.stdout
