"""Each option of steering against a plain reference; offline data; what a foreign policy needs."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from dsrl import train_bc, train_dsrl
from dsrl.config import BACKUPS, DSRLConfig
from dsrl.critics import LayerNormCritic, backed_up
from dsrl.demos import read_demonstrations
from dsrl.noise_aliasing import Distillation
from dsrl.noise_sac import BUFFER
from dsrl.offline import demonstrated, read_offline, write_buffer
from dsrl.rollout import episode_seeds, open_environments, run_episodes
from dsrl.saved_actor import load_saved_actor
from dsrl.steering import Steering, prior_noise, steer
from runtime import interrupt
from runtime.errors import ConfigError, DataError, StateError
from tests.dsrl.conftest import call, tiny_steering
from tests.dsrl.foreign import Throw
from tests.dsrl.stacked_critics import expect_stacked_like
from tests.resuming import expect_equal, stopped

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nobody_asks():
    interrupt.clear()
    yield
    interrupt.clear()


def _run(folder, **options):
    """A run that steers the foreign policy, after its warm start."""
    run = Steering(Throw(), _config(folder, **options))
    while not run.is_warm:
        run.warm_up()
    return run


def _config(folder, **options):
    own = {"initial_steps": 24, "max_timesteps": 12, "horizon": 3, "until_success": False, "reward_offset": 0.0}
    return tiny_steering(folder, **{**own, **options})


def _plain_values(critic, states, actions):
    """(K, B) of each critic by its own modules."""
    return torch.stack([net(torch.cat([states, actions], dim=1))[:, 0] for net in critic.q_networks])


@pytest.mark.parametrize("layer_norm", [True, False])
def test_critics_of_any_number_are_as_many_single_networks_and_so_are_their_gradients(tmp_path, layer_norm):
    critic = _run(tmp_path, critics=3, critic_layer_norm=layer_norm).model.critic
    assert isinstance(critic, LayerNormCritic) is layer_norm
    kinds = [type(layer).__name__ for layer in critic.q_networks[0]]
    assert kinds == (["Linear", *["LayerNorm"] * layer_norm, "Tanh"] * 2) + ["Linear"]
    with torch.no_grad():
        for value in critic.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    states, actions = torch.randn(5, 2), torch.randn(5, 3)
    plain = _plain_values(critic, states, actions)
    expect_stacked_like(critic, plain, states, actions)


def test_a_backup_is_the_minimum_the_mean_or_the_minimum_of_a_random_few(tmp_path):
    critic = _run(tmp_path, critics=4).model.critic
    states, actions = torch.randn(6, 2), torch.randn(6, 3)
    values = _plain_values(critic, states, actions)
    generator = torch.Generator().manual_seed(0)
    for backup, expected in (("min", values.amin(dim=0)), ("mean", values.mean(dim=0))):
        torch.testing.assert_close(backed_up(critic.q_networks, backup, 2, generator)(states, actions), expected)
    of_pairs = {tuple(values[[i, j]].amin(dim=0).tolist()) for i in range(4) for j in range(i)}
    drawn = [backed_up(critic.q_networks, "subset", 2, generator)(states, actions) for _ in range(40)]
    found = {min(of_pairs, key=lambda pair: (torch.tensor(pair) - value).abs().max().item()) for value in drawn}
    assert all(min((torch.tensor(pair) - v).abs().max() for pair in of_pairs) < 1e-5 for v in drawn)
    assert len(found) >= 4, "the few are drawn anew"


@pytest.mark.parametrize("backup", BACKUPS)
@pytest.mark.parametrize("entropy", [True, False])
def test_critics_and_actor_learn_from_the_backup_that_was_asked_for(tmp_path, backup, entropy):
    """Losses of one update against the equations, on stable-baselines3's own networks."""
    options = {"backup": backup, "backup_critics": 1, "critics": 3, "backup_entropy": entropy, "ent_coef": "0.3"}
    model = _run(tmp_path, **options).model
    drawn = model.sample(8)
    batch, random = drawn.batch, torch.Generator().manual_seed(5)
    with torch.no_grad():
        w, log_prob = _sampled(model, batch.next_states, random)
        values = _plain_values(model.critic_target, batch.next_states, w)
        chosen = torch.randperm(3, generator=random)[:1] if backup == "subset" else slice(None)
        value = values.mean(dim=0) if backup == "mean" else values[chosen].amin(dim=0)
        target = batch.rewards + (1 - batch.dones) * 0.99 * (value - entropy * 0.3 * log_prob)
        expected = (_plain_values(model.critic, batch.states, batch.actions) - target).square().mean(dim=1).sum()
    model.generator.manual_seed(5)
    torch.testing.assert_close(
        model.update_critics(drawn, torch.tensor(0.3))["critic_loss"], expected, rtol=1e-4, atol=1e-4
    )
    with torch.no_grad():
        w, log_prob = _sampled(model, batch.states, torch.Generator().manual_seed(6))
        values = _plain_values(model.critic, batch.states, w)
        expected = (0.3 * log_prob - (values.amin(dim=0) if backup == "min" else values.mean(dim=0))).mean()
    model.generator.manual_seed(6)
    torch.testing.assert_close(
        model.update_actor(batch.states, torch.tensor(0.3))["actor_loss"], expected, rtol=1e-4, atol=1e-4
    )


def _sampled(model, states, random):
    mean, log_std, _ = model.actor.get_action_dist_params(states)
    model.actor.action_dist.proba_distribution(mean, log_std)
    raw = mean + log_std.exp() * torch.randn(mean.shape, generator=random)
    return raw.tanh(), model.actor.action_dist.log_prob(raw.tanh(), raw)


def test_the_entropy_s_weight_stays_where_it_is_given_and_else_moves_towards_the_target(tmp_path):
    fixed = _run(tmp_path / "fixed", ent_coef="0.3").model
    fixed.train(3, 16)
    assert fixed.alpha().item() == pytest.approx(0.3)
    for target, grows in ((50.0, True), (-50.0, False)):
        model = _run(tmp_path / str(target), ent_coef="auto_0.3", target_entropy=target).model
        start = model.alpha().item()
        model.train(3, 16)
        assert start == pytest.approx(0.3)
        assert (model.alpha().item() > start) is grows


def test_noise_of_the_warm_start_is_clipped_or_truncated():
    bound = np.full(3, 1.5, np.float32)
    clipped, truncated = (prior_noise(np.random.default_rng(0), 20_000, bound, how) for how in ("clipped", "truncated"))
    assert (np.abs(clipped) == 1.5).mean() == pytest.approx(0.134, abs=0.01)
    assert (np.abs(truncated) == 1.5).mean() < 1e-3
    assert truncated.std() == pytest.approx(truncnorm(-1.5, 1.5).std(), abs=0.01)
    levels = np.linspace(-1.4, 1.4, 9)
    found = [(truncated < level).mean() for level in levels]
    np.testing.assert_allclose(found, truncnorm(-1.5, 1.5).cdf(levels), atol=0.01)


def test_the_critics_learn_alone_before_the_actor_follows_them(tmp_path, monkeypatch):
    seen = []

    def train(self, *_):
        seen.append([value.clone() for value in self.actor.parameters()])

    monkeypatch.setattr("dsrl.noise_sac.NoiseSAC.train", train)
    fresh = Steering(Throw(), _config(tmp_path / "fresh")).model
    steer(Throw(), _config(tmp_path / "run", critic_warmup=5, ent_coef="0.1"))
    assert all(map(torch.equal, seen[0], fresh.actor.parameters()))
    saved = torch.load(tmp_path / "run" / "resume.pt") if (tmp_path / "run" / "resume.pt").exists() else None
    assert saved is None, "a finished run"
    run = Steering(Throw(), _config(tmp_path / "again"))
    run.warm_up()
    before = [value.clone() for value in run.model.critic.parameters()]
    run.model.train_critics(8)
    assert not all(map(torch.equal, before, run.model.critic.parameters()))
    assert all(map(torch.equal, run.model.actor.parameters(), fresh.actor.parameters()))


def test_offline_decisions_are_as_many_of_a_batch_as_asked(tmp_path):
    kept = _run(tmp_path / "kept")
    write_buffer(tmp_path / "buffer.npz", kept.model.replay_buffer, kept.policy, kept.config)
    rows = kept.model.replay_buffer.size() * 2
    model = _run(tmp_path / "run", offline_data=str(tmp_path / "buffer.npz"), offline_share=0.25, initial_steps=6).model
    drawn = model.sample(64)
    assert (drawn.rows < rows).sum() == 16
    for i in np.flatnonzero(drawn.rows < rows):
        np.testing.assert_array_equal(drawn.batch.states[i], model.offline.observations[drawn.rows[i], 0])
    model.rule = type(model.rule)()
    share = np.mean([(model.sample(64).rows < rows).mean() for _ in range(60)])
    own = model.replay_buffer.size() * 2
    assert share == pytest.approx(rows / (rows + own), abs=0.03), "else in proportion to their number"


@pytest.mark.parametrize("algorithm", ["sac", "na"])
def test_a_run_may_begin_without_a_warm_start_also_from_offline_decisions_alone(tmp_path, algorithm):
    kept = _run(tmp_path / "kept", algorithm=algorithm)
    write_buffer(tmp_path / "buffer.npz", kept.model.replay_buffer, kept.policy, kept.config)
    without = {"algorithm": algorithm, "initial_steps": 0}
    assert steer(Throw(), _config(tmp_path / "bare", **without))["env_steps"]["training"] == 12
    offline = {"offline_data": str(tmp_path / "buffer.npz"), "offline_share": 0.5, "critic_warmup": 3}
    result = steer(Throw(), _config(tmp_path / "offline", **without, **offline))
    assert result["env_steps"] == {"warm_start": 0, "training": 12}
    with pytest.raises(DataError, match="too little to learn from"):
        steer(Throw(), _config(tmp_path / "weak", **without, least_base_rate=0.99))


def test_a_kept_replay_buffer_is_read_again_in_order_and_only_for_the_same_policy(tmp_path):
    run = _run(tmp_path)
    buffer, path = run.model.replay_buffer, tmp_path / "buffer.npz"
    write_buffer(path, buffer, run.policy, run.config)
    size = buffer.size()
    offline = read_offline(path, run.policy, run.config)
    for name in BUFFER:
        for env in range(2):
            part = slice(env * size, (env + 1) * size - 1)  # the last row is marked as an end
            np.testing.assert_array_equal(getattr(offline, name)[part, 0], getattr(buffer, name)[: size - 1, env])
    assert offline.dones[size - 1] == 1
    other = Throw()
    other.identity = "throw-2"
    with pytest.raises(DataError, match=r"buffer\.npz: a replay buffer of another policy"):
        read_offline(path, other, run.config)
    with pytest.raises(DataError, match="of another algorithm"):
        read_offline(path, run.policy, _config(tmp_path, algorithm="na"))
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "rewards": arrays["rewards"][:-1]})
    with pytest.raises(DataError, match=r"observations has the shape"):
        read_offline(path, run.policy, run.config)
    np.savez(path, **{**arrays, "about": np.array("{")})
    with pytest.raises(DataError, match="about is not JSON"):
        read_offline(path, run.policy, run.config)


def test_demonstrations_become_decisions_with_what_was_executed(policy, demos, tmp_path):
    """Against a plain loop over the file."""
    import h5py

    config = tiny_steering(tmp_path, algorithm="na", offline_data=str(demos))
    offline = read_offline(demos, policy, config)
    expected = []
    with h5py.File(demos) as file:
        for name in sorted(file["data"]):
            group = file["data"][name]
            parts = [np.concatenate([group["obs"][key][:], group["next_obs"][key][-1:]]) for key in policy.keys]
            seen, rewards = np.concatenate(parts, axis=1), group["rewards"][:]
            executed, solved = group["executed_actions"][:], int(np.argmax(rewards > 0))
            for first in range(4):
                for step in range(first, solved + 1, 4):
                    ends = solved < step + 4
                    chunk = [executed[min(step + i, len(executed) - 1)] for i in range(4)]
                    count = solved - step + 1 if ends else 4
                    expected.append((seen[step], seen[step + count], np.concatenate(chunk), ends - count, ends))
    assert len(offline.rewards) == len(expected)
    seen, after, chunks, rewards, ends = (np.array(column) for column in zip(*expected, strict=True))
    np.testing.assert_allclose(offline.observations[:, 0], policy.features(seen), atol=1e-5)
    np.testing.assert_allclose(offline.next_observations[:, 0], policy.features(after), atol=1e-5)
    np.testing.assert_array_equal(offline.rewards[:, 0], rewards)
    np.testing.assert_array_equal(offline.dones[:, 0], ends)
    assert not offline.timeouts.any()
    np.testing.assert_allclose(policy.to_actions(torch.from_numpy(offline.actions[:, 0])), chunks, atol=1e-5)
    held = demonstrated(
        read_demonstrations(demos), policy, tiny_steering(tmp_path, until_success=False), terminals=False
    )
    assert held.timeouts.sum() == held.dones.sum() == 16, "four runs of decisions in each of four episodes end in time"
    with pytest.raises(ConfigError, match="demonstrations hold actions and no noise"):
        read_offline(demos, policy, tiny_steering(tmp_path))


def test_distillation_takes_pairs_that_were_denoised_once_when_they_were_stored(tmp_path, monkeypatch):
    asked = []
    denoise = Throw.denoise

    def counted(self, seen, w):
        asked.append(len(seen))
        return denoise(self, seen, w)

    monkeypatch.setattr(Throw, "denoise", counted)
    run = _run(tmp_path, algorithm="na", distill_pairs=4, distill_steps=3)
    assert asked.count(8) == run.model.replay_buffer.size(), "four for each of two environments, as one batch"
    asked.clear()
    drawn = run.model.sample(16)
    run.model.update_critics(drawn, run.model.alpha())
    assert asked == [16], "the next chunks alone"
    memory = run.model.memory
    for number in range(4):
        w, chunks = memory.pairs(drawn.rows, np.full(16, number), CPU)
        torch.testing.assert_close(chunks, denoise(run.policy, drawn.batch.states, w))
        assert w.abs().max() <= 1


def test_a_share_of_next_chunks_is_denoised_anew_the_oldest_first(tmp_path):
    model = _run(tmp_path, algorithm="na", refresh_share=0.25).model
    drawn = model.sample(16)
    chunks, density = model._next_chunks(drawn)
    model.generator.manual_seed(9)
    model._n_updates = 1
    again, density_again = model._next_chunks(drawn)
    rows = np.unique(drawn.next_rows)
    assert (model.memory.arrays["next_asked"][rows] == 1).sum() <= 4
    changed = (chunks != again).any(dim=1)
    assert 1 <= changed.sum() < 16
    assert torch.equal(changed, density != density_again)
    asked = model.memory.arrays["next_asked"][drawn.next_rows]
    np.testing.assert_array_equal(changed.numpy(), asked == 1)
    whole = _run(tmp_path / "whole", algorithm="na").model
    drawn = whole.sample(16)
    whole.generator.manual_seed(5)
    chunks, density = whole._next_chunks(drawn)
    w, expected = _sampled(whole, drawn.batch.next_states, torch.Generator().manual_seed(5))
    torch.testing.assert_close(density, expected, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(chunks, Throw().denoise(drawn.batch.next_states, w))


def test_a_run_of_noise_aliasing_with_demonstrations_and_kept_chunks_goes_on_to_the_same_weights(
    policy, demos, tmp_path
):
    def run(folder):
        kept = {"distill_pairs": 2, "refresh_share": 0.5, "offline_data": str(demos), "n_step": 2, "critic_warmup": 2}
        result = steer(policy, tiny_steering(folder, algorithm="na", initial_steps=16, eval_freq=40, **kept))
        return {**result, "seconds": 0}, load_saved_actor(folder / "sac_best.zip", CPU).actor.state_dict()

    whole = run(tmp_path / "whole")
    stopped(run, tmp_path / "cut", 6)
    expect_equal(run(tmp_path / "cut"), whole)


def test_checkpoints_are_kept_every_so_many_steps_with_the_buffer_or_without(tmp_path):
    steer(Throw(), _config(tmp_path / "both", checkpoint_every=4, keep_buffer=True))
    steer(Throw(), _config(tmp_path / "actors", checkpoint_every=6))
    found = {name: sorted(p.name for p in (tmp_path / name / "checkpoints").iterdir()) for name in ("both", "actors")}
    assert found == {
        "both": sorted(
            f"{kind}_{step}.{end}" for step in (4, 8, 12) for kind, end in (("buffer", "npz"), ("sac", "zip"))
        ),
        "actors": ["sac_12.zip", "sac_6.zip"],
    }
    assert load_saved_actor(tmp_path / "both" / "checkpoints" / "sac_8.zip", CPU)
    config = _config(tmp_path / "both", checkpoint_every=4)
    assert read_offline(tmp_path / "both" / "checkpoints" / "buffer_8.npz", Throw(), config).size() == (24 + 8)


def test_results_do_not_depend_on_how_many_environments_evaluate(tmp_path):
    one = steer(Throw(), _config(tmp_path / "one", eval_envs=1, n_episodes=5))
    four = steer(Throw(), _config(tmp_path / "four", eval_envs=4, n_episodes=5))
    assert {**one, "seconds": 0} == {**four, "seconds": 0}
    assert steer(Throw(), _config(tmp_path / "one", eval_envs=3, n_episodes=5)) == one, "the same run"
    with pytest.raises(StateError, match="critics"):
        steer(Throw(), _config(tmp_path / "one", critics=3, n_episodes=5))


@pytest.mark.parametrize("algorithm", ["sac", "na"])
def test_any_policy_of_observation_and_noise_is_steered(tmp_path, algorithm):
    """A foreign policy in a foreign environment, whose noise has another size than its chunk, gains by it."""
    options = {"action_magnitude": 2.0, "horizon": 3, "until_success": False, "reward_offset": 0.0, "num_envs": 4}
    sizes = {"initial_steps": 200, "max_timesteps": 900, "utd": 4, "hidden_dims": (32, 32), "learning_rate": 3e-3}
    entropy = {"ent_coef": "auto_0.05", "target_entropy": -6.0, "discount": 0.5, "batch_size": 32}
    trials = {"eval_freq": 900, "n_episodes": 30, "fresh_episodes": 100, "least_base_rate": 0.0}
    config = DSRLConfig(
        save_dir=str(tmp_path),
        device="cpu",
        algorithm=algorithm,
        distill_steps=2,
        **options,
        **sizes,
        **entropy,
        **trials,
    )
    result = steer(Throw(), config)
    assert result["task"] == "aim"
    assert result["steered_deterministic"]["mean_return"] > result["cloned"]["mean_return"] + 0.8
    assert result["steered_deterministic"]["rate"] > result["cloned"]["rate"] + 0.3
    asked = json.loads((tmp_path / "config.json").read_text())
    assert asked["policy"] == "throw-1"


def test_the_return_of_an_episode_is_that_of_the_environment():
    with open_environments(Throw(), 2, horizon=3, until_success=False) as environments:
        episodes = run_episodes(Throw(), environments, episode_seeds(0, 5), lambda seen, *_: torch.zeros(len(seen), 3))
    assert (episodes.control_steps == 3).all()
    assert (episodes.decisions == 3).all()
    assert ((episodes.returns > 0) & (episodes.returns < 3)).all()
    assert episodes.summary()["mean_return"] == pytest.approx(episodes.returns.mean())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("backup", {"backup": "max"}),
        ("warm_noise", {"warm_noise": "none"}),
        ("backup_critics 3", {"backup_critics": 3}),
        ("offline_share 0.5", {"offline_share": 0.5}),
        ("critic_warmup 5", {"critic_warmup": 5, "initial_steps": 0}),
        ("refresh_share", {"refresh_share": 0.0}),
        ("eval_envs", {"eval_envs": -1}),
        ("checkpoint_every", {"checkpoint_every": -1}),
    ],
)
def test_options_that_cannot_be_are_named(name, options):
    with pytest.raises(ConfigError, match=name):
        DSRLConfig(**options)


def test_the_commands_take_the_usual_flags_of_weights_and_biases(cloned, demos):
    for main, options in ((train_bc.main, {"data_path": str(demos)}), (train_dsrl.main, {"bc_checkpoint": cloned})):
        with pytest.raises(ConfigError, match="expected --wandb_project too"):
            call(main, wandb="offline", **options)


def test_defaults_are_those_of_the_public_code():
    config = DSRLConfig()
    assert (config.ent_coef, config.target_entropy, config.critics, config.backup) == ("auto_1.0", 0.0, 2, "min")
    assert (config.critic_layer_norm, config.backup_entropy, config.n_step) == (True, True, 1)
    assert (
        (config.distill_steps, config.distill_pairs, config.refresh_share)
        == (10, 0, 1.0)
        == (
            Distillation().steps,
            Distillation().pairs,
            Distillation().refresh_share,
        )
    )
