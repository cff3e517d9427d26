"""SAC's update against hand computation, RLPD's batches, and online runs that end as if never interrupted."""

import copy
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution
from torch.nn import functional as F

from corl.batch import Batch
from corl.episodes import EpisodeStream
from corl.evaluate import Evaluation, evaluate
from corl.networks import LOG_STD, CriticEnsemble, SquashedActor
from corl.online import HISTORY_FILE, OnlinePolicy, OnlineRun, read_history, train_online
from corl.online_config import OnlineConfig
from corl.online_replay import ObservationCode, OnlineReplay
from corl.rlpd import MixSchedule, PriorData, sample
from corl.sac import SAC, SACConfig, actor_loss, critic_loss, soft_target, squash, temperature_loss
from envs.pool import EnvPool
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.samples import write_samples
from offline_compositional_rl_datasets.state_transform import EXPLORERS_LEAST_STD, StateTransform
from pipeline.commands.online import VARIANTS, SACFlags, sac_command
from pipeline.stages.online import LearnOnline, random_states, run_name, synthetic_prior
from runtime.cli import parse_flags
from runtime.config import from_mapping, read_yaml
from runtime.errors import ConfigError, DataError
from runtime.metrics import read_metrics
from runtime.resumable import RESUME_FILE
from tests.recordings import random_transitions

CPU = torch.device("cpu")
TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")
CODE = ObservationCode(StateTransform.unscaled(COMPOSUITE, task_ids=True))


def _batch(size=16, obs=5, act=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states, following = torch.randn(2, size, obs, generator=generator)
    actions = torch.rand(size, act, generator=generator) * 2 - 1
    rewards = torch.rand(size, generator=generator)
    return Batch(states, actions, rewards, following, (rewards > 0.7).float())


def _agent(**options):
    return SAC.build(5, 2, SACConfig(hidden_dims=(8, 8), **options), seed=0, device=CPU)


@pytest.mark.parametrize("layer_norm", ["none", "last", "all"])
def test_an_ensemble_equals_separate_networks(layer_norm):
    ensemble, batch = CriticEnsemble(5, 2, (8, 6), count=3, layer_norm=layer_norm), _batch()
    for parameter in (*ensemble.gains, *ensemble.shifts):
        torch.nn.init.normal_(parameter)
    together = ensemble(batch.states, batch.actions)
    for i in range(3):
        h = torch.cat([batch.states, batch.actions], dim=1)
        for layer in range(3):
            h = h @ ensemble.weights[layer][i] + ensemble.biases[layer][i]
            norm = {"none": None, "last": 0 if layer == 1 else None, "all": layer}[layer_norm]
            if layer == 2:
                break
            if layer_norm == "last":
                h = torch.relu(h)
            if norm is not None:
                h = F.layer_norm(h, h.shape[-1:], ensemble.gains[norm][i, 0], ensemble.shifts[norm][i, 0])
            if layer_norm != "last":
                h = torch.relu(h)
        torch.testing.assert_close(together[i], h[:, 0])


def test_the_density_of_a_squashed_action_is_that_of_the_transformed_gaussian():
    generator = torch.Generator().manual_seed(0)
    gaussian, noise = (torch.randn(n, 6, 3, dtype=torch.float64, generator=generator) for n in (2, 1))
    noise = noise[0]
    actions, log_density = squash(gaussian, noise)
    reference = TransformedDistribution(Normal(gaussian[0], gaussian[1].exp()), [TanhTransform()])
    torch.testing.assert_close(log_density, reference.log_prob(actions).sum(dim=1))
    far = squash(torch.tensor([[[20.0]], [[0.0]]]), torch.zeros(1, 1))[1]
    assert torch.isfinite(far)


def test_the_target_of_one_transition_is_what_one_computes_by_hand():
    def actor(states):
        return torch.tensor([[[0.5]], [[-1.0]]]).expand(2, len(states), 1)

    def critic(states, actions):
        return torch.stack([states[:, 0] + actions[:, 0], 2 * states[:, 0]])

    batch = Batch(
        torch.zeros(2, 1),
        torch.zeros(2, 1),
        torch.tensor([1.0, 2.0]),
        torch.full((2, 1), 3.0),
        torch.tensor([0.0, 1.0]),
    )
    noise = torch.full((2, 1), 0.3)
    target = soft_target(actor, critic, batch, noise, torch.tensor(0.2), 0.9)
    raw = 0.5 + math.exp(-1.0) * 0.3
    action = math.tanh(raw)
    log_density = -0.5 * 0.3**2 + 1.0 - 0.5 * math.log(2 * math.pi) - math.log(1 - action**2)
    assert target[0].item() == pytest.approx(1.0 + 0.9 * (min(3 + action, 6.0) - 0.2 * log_density), rel=1e-5)
    assert target[1].item() == 2.0


def test_with_the_file_for_gymnasium_an_agent_learns_as_cleanrl_s_does():
    """Its settings, and the actor's and the temperature's two steps in every second update, step by step."""
    config = from_mapping(OnlineConfig, read_yaml("config/online/gymnasium.yaml"), source="file")
    sac = config.sac
    assert (config.learning_starts, config.buffer_size, config.random_start) == (5000, 10**6, True)
    assert (config.batch_size, sac.discount, sac.tau, sac.policy_lr, sac.q_lr) == (256, 0.99, 0.005, 3e-4, 1e-3)
    assert (sac.policy_frequency, sac.target_network_frequency, config.updates_per_step) == (2, 1, 1)
    assert (sac.hidden_dims, sac.critics, sac.layer_norm, sac.autotune) == ((256, 256), 2, "none", True)
    agent = SAC.build(5, 2, dataclasses.replace(sac, hidden_dims=(8, 8)), seed=0, device=CPU)
    assert LOG_STD == (-5, 2)
    assert (2 * sac.entropy_per_action, float(agent.modules["temperature"].log_alpha)) == (-2.0, 0.0)
    plain = copy.deepcopy(agent)
    log_alpha, critic = plain.modules["temperature"].log_alpha, plain.modules["critic"]
    actor_steps = torch.optim.Adam(plain.actor.parameters(), 3e-4)
    alpha_steps = torch.optim.Adam([log_alpha], 1e-3)
    for k in range(4):
        batch = _batch(seed=k)
        noise = torch.randn(3, 16, 2, generator=torch.Generator().manual_seed(k))
        before = [value.clone() for value in agent.actor.parameters()]
        agent.update(batch, (noise, torch.tensor([0, 1])))
        moved = not all(map(torch.equal, before, agent.actor.parameters()))
        assert moved is (k % 2 == 1)
        critic.load_state_dict(agent.modules["critic"].state_dict())
        for own in noise[1:] if moved else ():
            action, log_density = squash(plain.actor(batch.states, True), own)
            loss = (log_alpha.exp().detach() * log_density - critic(batch.states, action).amin(dim=0)).mean()
            actor_steps.zero_grad()
            loss.backward()
            actor_steps.step()
            alpha_loss = (-log_alpha.exp() * (log_density.detach() - 2.0)).mean()
            alpha_steps.zero_grad()
            alpha_loss.backward()
            alpha_steps.step()
        for found, expected in zip(agent.actor.parameters(), plain.actor.parameters(), strict=True):
            torch.testing.assert_close(found, expected)
        torch.testing.assert_close(agent.modules["temperature"].log_alpha, log_alpha)


@pytest.mark.parametrize("cloning", [0.0, 1.5])
def test_an_update_takes_the_steps_that_autograd_and_plain_adam_give(cloning):
    """A straightforward SAC with separate critics and unfused optimisers ends at the same weights."""
    agent, updates, prior = _agent(layer_norm="none", cloning=cloning), 4, 6
    plain = copy.deepcopy(agent)
    critics = [
        [
            torch.nn.Parameter(p[i].detach().clone())
            for p in (*plain.modules["critic"].weights, *plain.modules["critic"].biases)
        ]
        for i in range(2)
    ]
    targets = [[p.detach().clone() for p in critic] for critic in critics]

    def q(weights, states, actions):
        h = torch.cat([states, actions], dim=1)
        for layer in range(3):
            h = h @ weights[layer] + weights[3 + layer][0]
            h = torch.relu(h) if layer < 2 else h
        return h[:, 0]

    q_adam = torch.optim.Adam([p for critic in critics for p in critic], 1e-3)
    pi_adam = torch.optim.Adam(plain.actor.parameters(), 3e-4)
    log_alpha = torch.zeros(1, requires_grad=True)
    a_adam = torch.optim.Adam([log_alpha], 1e-3)
    for k in range(updates):
        batch, noise = _batch(seed=k), torch.randn(2, 16, 2, generator=torch.Generator().manual_seed(100 + k))
        agent.step(agent.networks, batch, (noise, torch.tensor([0, 1])), k + 1, prior)
        alpha = log_alpha.exp().detach()
        with torch.no_grad():
            action, log_density = squash(plain.actor(batch.next_states, True), noise[0])
            least = torch.min(*(q(w, batch.next_states, action) for w in targets))
            target = batch.rewards + (1 - batch.dones) * 0.99 * (least - alpha * log_density)
        loss = sum(F.mse_loss(q(w, batch.states, batch.actions), target) for w in critics)
        q_adam.zero_grad()
        loss.backward()
        q_adam.step()
        action, log_density = squash(plain.actor(batch.states, True), noise[1])
        loss = (alpha * log_density - torch.min(*(q(w, batch.states, action) for w in critics))).mean()
        cloned = plain.actor(batch.states[:prior])
        loss = loss + cloning * target.abs().mean() * F.mse_loss(cloned, batch.actions[:prior])
        pi_adam.zero_grad()
        loss.backward()
        pi_adam.step()
        loss = (-log_alpha.exp() * (log_density.detach() - 2.0)).mean()
        a_adam.zero_grad()
        loss.backward()
        a_adam.step()
        for old, new in zip(targets, critics, strict=True):
            for t, p in zip(old, new, strict=True):
                t.mul_(0.995).add_(0.005 * p.detach())
    for ours, theirs in zip(agent.actor.parameters(), plain.actor.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    for i in range(2):
        for name, weights in (("critic", critics[i]), ("critic_target", targets[i])):
            ensemble = agent.modules[name]
            for ours, theirs in zip((*ensemble.weights, *ensemble.biases), weights, strict=True):
                torch.testing.assert_close(ours[i], theirs)
    torch.testing.assert_close(agent.modules["temperature"].log_alpha, log_alpha[0])


def test_losses_have_the_gradients_of_finite_differences():
    batch = Batch(*(part.double() for part in _batch(size=4)))
    actor, critic = SquashedActor(5, 2, (4,)).double(), CriticEnsemble(5, 2, (4,), 2, "all").double()
    noise, alpha = torch.randn(4, 2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)

    def of_actor(bias):
        parameters = {**dict(actor.named_parameters()), "mean.bias": bias}
        net = lambda states: torch.func.functional_call(actor, parameters, (states, True))  # noqa: E731
        return actor_loss(net, critic, batch, noise, alpha, mean=True)[0]

    def of_critic(bias):
        parameters = {**dict(critic.named_parameters()), "biases.0": bias}
        net = lambda *inputs: torch.func.functional_call(critic, parameters, inputs)  # noqa: E731
        return critic_loss(net, batch, batch.rewards)

    assert torch.autograd.gradcheck(of_actor, actor.mean.bias)
    assert torch.autograd.gradcheck(of_critic, critic.biases[0])
    log_alpha, density = torch.zeros((), requires_grad=True), torch.tensor([1.0, 3.0])
    temperature_loss(log_alpha, density, -1.0).backward()
    assert log_alpha.grad.item() == pytest.approx(-1.0)  # -(2 - 1) at alpha = 1


def test_the_actor_and_the_targets_learn_as_often_as_asked():
    agent = _agent(policy_frequency=3, target_network_frequency=2, critics=4, target_critics=2)
    actors, targets = [], []
    for k in range(6):
        agent.learn(Batch(*(part[None] for part in _batch(seed=k))))
        actors.append(agent.actor.mean.bias.detach().clone())
        targets.append(agent.modules["critic_target"].weights[0].clone())
    changes = lambda values: [not torch.equal(a, b) for a, b in itertools.pairwise(values)]  # noqa: E731
    assert changes(actors) == [False, True, False, False, True]
    assert changes(targets) == [True, False, True, False, True]


def test_the_mix_ratio_holds_then_falls_in_a_line():
    schedule = MixSchedule(0.5, 0.1, decay_steps=100, decay_start=50)
    assert [schedule.ratio(step) for step in (0, 50, 100, 150, 1000)] == pytest.approx([0.5, 0.5, 0.3, 0.1, 0.1])
    with pytest.raises(ConfigError):
        MixSchedule(start=1.5)


@pytest.mark.parametrize(("ratio", "prior_rows"), [(0.5, 8), (0.3, 4), (0.0, 0), (1.0, 16)])
def test_batches_hold_the_share_of_prior_data_that_is_asked_for(ratio, prior_rows):
    code = ObservationCode(StateTransform.unscaled(COMPOSUITE, canonical_quaternions=False))
    prior = PriorData([random_transitions()], code, CPU)
    prior.rows[:, -1] = 1.0
    replay = OnlineReplay(50, code.width, CPU)
    replay.add(np.zeros((20, code.width), np.float32))
    generator = torch.Generator().manual_seed(0)
    batch = sample(replay, prior, int(16 * ratio), updates=3, batch_size=16, code=code, generator=generator)
    assert batch.states.shape == (3, 16, 77)
    assert batch.dones.sum(dim=1).tolist() == [prior_rows] * 3


def test_prior_data_of_many_tasks_carry_their_own_ids():
    tasks = [TASK, CompoSuiteTask.parse("IIWA_Plate_GoalWall_Shelf")]
    prior = PriorData([random_transitions(4, task=task) for task in tasks], CODE, CPU)
    ids = CODE.cut(prior.rows).next_states[:, COMPOSUITE.ids_slice].numpy()
    np.testing.assert_array_equal(ids[0], tasks[0].one_hot)
    np.testing.assert_array_equal(ids[7], tasks[1].one_hot)


def test_normalised_states_are_magnified_at_most_tenfold():
    states = np.random.default_rng(0).normal(3.0, np.linspace(0.01, 2.0, 77), (4000, 77)).astype(np.float32)
    options = {"canonical_quaternions": False, "least_std": EXPLORERS_LEAST_STD}
    code = ObservationCode(StateTransform.fit(states, COMPOSUITE, **options))
    seen = code(states, TASK)
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-4)
    expected = np.minimum(1.0, states.std(axis=0) / 0.1)
    np.testing.assert_allclose(seen.std(axis=0), expected, rtol=1e-3)
    code = ObservationCode(StateTransform.fit(states, COMPOSUITE, hide_velocities=True, **options))
    hidden = code(states, TASK) == 0
    for part in COMPOSUITE.velocities:
        assert hidden[:, part].all()
        hidden[:, part] = False
    assert not hidden.any()


def test_states_to_normalise_by_without_data_are_those_of_the_seed():
    states = random_states(TASK, 0, steps=3, count=2)
    assert states.shape == (6, 77)
    np.testing.assert_array_equal(states, random_states(TASK, 0, steps=3, count=2))
    assert (states[4:] != states[:2]).any(axis=1).all()


def test_a_ring_is_read_back_from_its_increments_and_forgets_what_is_overwritten(tmp_path):
    replay = OnlineReplay(10, 3, CPU)
    for i in range(8):
        replay.add(np.full((3, 3), i, np.float32))
        if i % 2:
            replay.save(tmp_path)
            replay.prune(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    saved, rows = replay.added, replay.rows.clone()
    replay.add(np.full((3, 3), 99, np.float32))
    replay.save(tmp_path)  # killed here, before its checkpoint
    again = OnlineReplay(10, 3, CPU)
    again.load(tmp_path, saved)
    assert torch.equal(again.rows, rows)
    next(tmp_path.iterdir()).unlink()
    with pytest.raises(DataError, match="expected 24"):
        OnlineReplay(10, 3, CPU).load(tmp_path, saved)


def test_episodes_come_back_to_the_very_state_they_were_in():
    actions = np.random.default_rng(0).uniform(-1, 1, (9, 2, 8)).astype(np.float32)
    with EnvPool(TASK, 2, horizon=4) as environment:
        episodes = EpisodeStream(environment, seed=3, action_dim=8)
        episodes.environment.restart([None, 77])  # out of step with one another from here on
        episodes.actions[1] = []
        for k in range(6):
            if k == 3:
                episodes.numbers[1] += 1
                episodes.actions[1], episodes.returns[1] = [], 0.0
                episodes.states = environment.restart([None, episodes._seed(1)])
            episodes.step(actions[k])
        assert [len(own) for own in episodes.actions] == [2, 3]
        kept, states = episodes.state_dict(), episodes.states.copy()
        expected = [episodes.step(actions[k])[1] for k in (6, 7, 8)]
    with EnvPool(TASK, 2, horizon=4) as environment:
        episodes = EpisodeStream(environment, seed=3, action_dim=8)
        episodes.load_state_dict(kept)
        np.testing.assert_array_equal(episodes.states, states)
        for k, following in zip((6, 7, 8), expected, strict=True):
            np.testing.assert_array_equal(episodes.step(actions[k])[1], following)


def _config(**options):
    values = {
        "max_timesteps": 60,
        "num_envs": 3,
        "learning_starts": 12,
        "eval_freq": 30,
        "n_episodes": 2,
        "horizon": 7,
        "checkpoint_seconds": 0.0,
        "log_freq": 12,
        "task_ids": True,
        "batch_size": 16,
        "sac": SACConfig(hidden_dims=(16, 16), critics=3),
    }
    return OnlineConfig(**(values | options))


def _run(folder, config, *, stop_at=None, workers=0):
    agent = SAC.build(CODE.dim, CODE.action_dim, config.sac, seed=0, device=CPU)
    prior = PriorData([random_transitions()], CODE, CPU)
    with EnvPool(TASK, 3, workers=workers, horizon=7) as environment, EnvPool(TASK, 2, horizon=7) as judge:
        run = OnlineRun(OnlinePolicy(agent, CODE, TASK, CPU), environment, config, folder, seed=5, prior=prior, key="k")

        def judged(policy, seeds):
            if stop_at is not None and run.step >= stop_at:
                raise KeyboardInterrupt
            return evaluate(policy, judge, seeds)

        train_online(run, judged)
    return agent


def test_a_run_that_was_killed_ends_with_the_numbers_of_one_that_was_not(tmp_path):
    whole = _run(tmp_path / "whole", _config())
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "cut", _config(), stop_at=60)
    assert (tmp_path / "cut" / RESUME_FILE).exists()
    resumed = _run(tmp_path / "cut", _config())
    for ours, theirs in zip(whole.modules["critic"].parameters(), resumed.modules["critic"].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(whole.actor.mean.weight, resumed.actor.mean.weight)
    times = {"seconds", "SPS"}
    strip = lambda rows: [{k: v for k, v in row.items() if k not in times} for row in rows]  # noqa: E731
    assert strip(read_history(tmp_path / "cut")) == strip(read_history(tmp_path / "whole"))
    logs = [strip(read_metrics(tmp_path / name / "metrics.jsonl")) for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_worker_processes_change_no_number(tmp_path):
    config = _config(max_timesteps=30)
    here, there = _run(tmp_path / "a", config), _run(tmp_path / "b", config, workers=1)
    assert torch.equal(here.modules["critic"].weights[0], there.modules["critic"].weights[0])


def test_a_run_made_otherwise_starts_anew(tmp_path):
    config = _config(max_timesteps=30)
    _run(tmp_path, config)
    assert len(read_history(tmp_path)) == 1
    agent = SAC.build(CODE.dim, CODE.action_dim, config.sac, seed=0, device=CPU)
    with EnvPool(TASK, 3, horizon=7) as environment:
        run = OnlineRun(OnlinePolicy(agent, CODE, TASK, CPU), environment, config, tmp_path, seed=5, key="other")
        assert run.step == 0
        assert not (tmp_path / "replay").exists()


def test_an_agent_that_diverged_is_named_with_its_step(tmp_path):
    fast = SACConfig(hidden_dims=(16, 16), critics=3, policy_lr=1e30, q_lr=1e30)
    with pytest.raises(DataError, match=r"the agent at step \d+ gives actions that are not finite"):
        _run(tmp_path, _config(sac=fast, checkpoint_seconds=1000))


def test_a_run_may_end_at_the_success_that_is_wanted(tmp_path):
    config = _config(stop_success=0.8, max_timesteps=600)
    agent = SAC.build(CODE.dim, CODE.action_dim, config.sac, seed=0, device=CPU)
    with EnvPool(TASK, 3, horizon=7) as environment:
        run = OnlineRun(OnlinePolicy(agent, CODE, TASK, CPU), environment, config, tmp_path, seed=5)
        scores = train_online(run, lambda policy, seeds: Evaluation(np.zeros(2), np.ones(2, bool)))
    assert scores.steps == 30
    assert (tmp_path / HISTORY_FILE).read_text().count("\n") == 2


def test_the_published_defaults_and_flags_are_there():
    config = SACFlags().online_config(VARIANTS["rlpd_synthdata"])
    assert (config.max_timesteps, config.learning_starts, config.eval_freq) == (1_000_000, 5_000, 100_000)
    assert (config.sac.q_lr, config.sac.policy_lr, config.batch_size) == (1e-3, 3e-4, 256)
    assert not config.task_ids
    assert SACFlags().online_config(VARIANTS["original"]).task_ids
    with pytest.raises(ConfigError, match="target_critics"):
        SACFlags(target_critics=5).online_config(VARIANTS["original"])
    with pytest.raises(ConfigError, match=r"alpha 0\.0: .* above 0"):
        SACFlags(autotune=False, alpha=0.0).online_config(VARIANTS["original"])
    with pytest.raises(ConfigError, match=r"buffer_size 3: expected at least 4 \(num_envs\)"):
        SACFlags(buffer_size=3, num_envs=4).online_config(VARIANTS["original"])


@pytest.mark.parametrize("file", ["rlpd.yaml", "laptop.yaml", "bootstrap.yaml"])
def test_the_configurations_of_online_learning_are_valid(file):
    from runtime.program import PROJECT_ROOT

    SACFlags(PROJECT_ROOT / "config" / "online" / file).online_config(VARIANTS["rlpd_synthdata"])


def test_the_script_with_synthetic_data_runs_and_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.stages.online.cpu_count", lambda: 1)  # no processes for episodes this short
    root = tmp_path / "dit_tasklist0_train14_x"
    write_samples(root / TASK.name / "samples_0.npz", random_transitions(), COMPOSUITE, {})
    main = sac_command(VARIANTS["rlpd_synthdata"])
    flags = "--total_timesteps 20 --learning_starts 10 --env_horizon 5 --n_eval_episodes 1 --batch_size 8 --no-cuda "
    flags += f"--obst None --seed 0 --runs_path {tmp_path / 'runs'} --base_synthetic_data_path {root}"
    parse_flags(main, flags.split())
    folder = tmp_path / "runs" / run_name(TASK, "cleanrl_sac_rlpd_synthdata", 0, root)
    assert folder.name.endswith("__0__train14_dit_tasklist0_train14_x")
    history = read_history(folder)
    assert [row["global_step"] for row in history] == [20]
    assert history[0]["mix_ratio"] == 0.5
    assert (folder / "checkpoints" / "sac_policy_model.pt").exists()
    assert not (folder / RESUME_FILE).exists()
    config = SACFlags(learning_starts=10, horizon=5, batch_size=8).online_config(VARIANTS["rlpd_synthdata"])
    policy = LearnOnline(TASK, config, 0, folder, device="cpu").best_policy()
    assert np.abs(policy(random_transitions().states)).max() <= 1
    with pytest.raises(DataError, match="has sets of IIWA_Box_None_Push"):
        synthetic_prior(root, CompoSuiteTask.parse("IIWA_Box_None_Shelf"))
    with pytest.raises(ConfigError, match="did you mean --base_synthetic_data_path"):
        parse_flags(main, ["--base_synthetic_data", "x"])


def test_the_agent_finds_the_action_that_a_state_asks_for():
    """One-step episodes with reward 1 - (a - s)^2: after some hundred updates the mean action follows the state."""
    agent = SAC.build(
        1, 1, SACConfig(hidden_dims=(32, 32), policy_lr=3e-3, q_lr=3e-3, layer_norm="all"), seed=0, device=CPU
    )
    generator = torch.Generator().manual_seed(0)
    states = torch.rand(300, 64, 1, generator=generator) - 0.5
    actions = 2 * torch.rand(300, 64, 1, generator=generator) - 1
    rewards = 1 - (actions - states).square()[..., 0]
    agent.learn(Batch(states, actions, rewards, states, torch.ones(300, 64)))
    wanted = torch.linspace(-0.4, 0.4, 5)[:, None]
    assert (agent.greedy(wanted) - wanted).abs().max() < 0.2
