"""Many policies at once give what each gives alone; IQL's updates are those of autograd on its formulas."""

import copy
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from benchmarks.roofline import Kernels
from corl.bulk import Bulk, train_policies
from corl.config import PolicyConfig
from corl.evaluate import Evaluation, evaluate
from corl.iql import IQL, IQLConfig
from corl.policy import Policy, checkpoint_file
from corl.replay import ReplayData, join
from corl.run import PolicyRun
from corl.train import train_policy
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from runtime.errors import ConfigError
from runtime.metrics import read_metrics
from runtime.resumable import RESUME_FILE
from tests.corl.test_corl import CPU, LineWorld, _batch
from tests.recordings import random_transitions

SETS = [random_transitions(rows=200, seed=0), random_transitions(rows=150, seed=1)]
PAIRS = [(0, 3), (1, 0), (0, 4), (1, 1)]  # (data set, seed)


def _config(algorithm, **options):
    small = {name: {"hidden_dims": (16, 16)} for name in ("td3_bc", "iql", "sac")}
    values = {"max_timesteps": 24, "batch_size": 16, "eval_freq": 8, "n_episodes": 3, "fresh_episodes": 4}
    return PolicyConfig(algorithm=algorithm, **(values | {"learners": small} | options))


def _runs(config, folder, pairs=PAIRS):
    data = [ReplayData.of(transitions, config, COMPOSUITE, CPU) for transitions in SETS]
    return [PolicyRun(data[d], config, folder / f"{d}_{seed}", seed=seed, device=CPU) for d, seed in pairs]


def _evaluate(policy, seeds):
    return evaluate(policy, LineWorld(), seeds)


def _submit(position, policy, seeds):
    future = Future()
    future.set_result(_evaluate(policy, seeds))
    return future


def _alone(config, folder, pairs=PAIRS):
    return [
        train_policy(
            PolicyRun(
                ReplayData.of(SETS[d], config, COMPOSUITE, CPU), config, folder / f"{d}_{seed}", seed=seed, device=CPU
            ),
            _evaluate,
        )
        for d, seed in pairs
    ]


def _same_files(config, a, b, pairs=PAIRS, tolerance=2e-5):
    for d, seed in pairs:
        one, two = (read_metrics(folder / f"{d}_{seed}" / "metrics.jsonl") for folder in (a, b))
        assert [row["step"] for row in one] == [row["step"] for row in two] == [8, 16, 24]
        for row, other in zip(one, two, strict=True):
            assert row == pytest.approx(other, rel=1e-3, abs=1e-4)
        one, two = (torch.load(folder / f"{d}_{seed}" / RESUME_FILE, weights_only=True)["learner"] for folder in (a, b))
        for name in ("actor", "critic", "critic_target"):
            torch.testing.assert_close(one[name], two[name], atol=tolerance, rtol=1e-4)
        for k, state in one["actor_optimizer"]["state"].items():
            torch.testing.assert_close(
                state["exp_avg"], two["actor_optimizer"]["state"][k]["exp_avg"], atol=1e-5, rtol=1e-3
            )
        assert torch.equal(one["generator"], two["generator"])


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("td3_bc", {}),
        ("iql", {}),
        ("sac", {}),
        ("iql", {"learners": {"iql": IQLConfig(hidden_dims=(16, 16), gaussian=True)}}),
    ],
    ids=["td3_bc", "iql", "sac", "iql_gaussian"],
)
def test_each_policy_of_a_group_equals_its_run_alone(algorithm, options, tmp_path):
    config = _config(algorithm, **options)
    alone = _alone(config, tmp_path / "alone")
    together = train_policies(_runs(config, tmp_path / "bulk"), config, _submit)
    for one, two in zip(alone, together, strict=True):
        assert (one.best_solved, one.last_solved, one.fresh_solved) == (
            two.best_solved,
            two.last_solved,
            two.fresh_solved,
        )
        assert one.fresh_return == pytest.approx(two.fresh_return, rel=1e-3)
    _same_files(config, tmp_path / "alone", tmp_path / "bulk")
    weights = [
        torch.load(tmp_path / "bulk" / f"{d}_{seed}" / RESUME_FILE, weights_only=True)["learner"]["critic"]["weights.0"]
        for d, seed in PAIRS
    ]
    assert all((weights[0] - other).abs().max() > 1e-3 for other in weights[1:]), "members differ from one another"


def test_where_nothing_is_chosen_the_fresh_episodes_are_the_only_evaluation(tmp_path):
    """The last step's policy has the score that it has where an evaluation at the last step comes before."""
    before, config = _config("td3_bc", eval_freq=24), _config("td3_bc", eval_freq=24, n_episodes=0)
    evaluated = []

    def submit(position, policy, seeds):
        evaluated.append(len(seeds))
        return _submit(position, policy, seeds)

    of_two = train_policies(_runs(before, tmp_path / "two"), before, _submit)
    of_one = train_policies(_runs(config, tmp_path / "one"), config, submit)
    alone = _alone(config, tmp_path / "alone")
    assert evaluated == [4] * len(PAIRS)
    for two, one, single in zip(of_two, of_one, alone, strict=True):
        assert (one.solved, one.trials, one.score) == (two.solved, 4, pytest.approx(two.score))
        assert (one.best_solved, one.last_solved, one.episodes) == (one.solved, one.solved, 4)
        assert (single.solved, single.trials) == (one.solved, 4)
        assert single.score == pytest.approx(one.score, rel=1e-3)


@pytest.mark.parametrize("options", [{"fresh_episodes": 0}, {"eval_freq": 8}])
def test_no_evaluation_on_the_way_needs_fresh_episodes_and_none_before_the_end(options):
    with pytest.raises(ConfigError, match="n_episodes 0 with fresh_episodes"):
        _config("td3_bc", **{"eval_freq": 24, "n_episodes": 0, **options})


def test_a_groups_batch_is_one_gather_however_many_sets_there_are(tmp_path):
    """Each member gets rows of its own set, of which nothing is kept twice, also when a part of the group goes on."""
    config = _config("td3_bc")
    runs = _runs(config, tmp_path, [*PAIRS, (1, 5)])
    originals = [run.data.rows(torch.arange(len(run.data))).clone() for run in runs]
    whole, part = Bulk(runs), Bulk([runs[1], runs[4]])
    assert len(whole.data) == 350 and part.data is whole.data
    assert {run.data.rows(slice(0, 1)).untyped_storage().data_ptr() for run in runs} == {whole.data.data_ptr()}
    for group in (whole, part):
        rows = torch.stack([torch.randint(len(run.data), (16,)) for run in group.runs])
        with Kernels() as kernels:
            batch = group.batch(rows)
        assert len(kernels.each) == 2, "an addition and a gather"
        for k, run in enumerate(group.runs):
            expected = run.data.cut(originals[runs.index(run)][rows[k]])
            for name, values in expected._asdict().items():
                assert torch.equal(getattr(batch, name)[k], values)


def test_the_sets_of_a_group_go_from_the_host_to_the_device_at_once(tmp_path):
    """No set is on the device by itself, so none is there twice."""
    data = [run.data for run in _runs(_config("td3_bc"), tmp_path)]
    whole, first = join(data, torch.device("meta"))
    assert whole.device.type == "meta" and len(whole) == 350 and first == [0, 200, 0, 200]
    assert all(each.rows(slice(0, 1)).device.type == "meta" for each in data)
    assert join(data[:1], torch.device("meta"))[0] is whole, "what is there is not copied again"


def test_a_group_in_bfloat16_stays_close_to_float32_and_alone(tmp_path):
    half = _config("td3_bc", precision="bfloat16", max_timesteps=8)
    whole = _config("td3_bc", max_timesteps=8)
    alone, bulk, exact = (_runs(config, tmp_path / name) for config, name in ((half, "a"), (half, "b"), (whole, "c")))
    for run in alone:
        list(run.advance(8))
    for runs in (bulk, exact):
        group = Bulk(runs)
        group.advance(8)
        group.write_back()
    moved, apart, rounded = False, [], []
    for one, two, three in zip(alone, bulk, exact, strict=True):
        for p, q, r in zip(*(run.learner.actor.parameters() for run in (one, two, three)), strict=True):
            apart.append((p - q).detach().abs().mean())
            rounded.append((q - r).detach().abs().mean())
            assert q.dtype == torch.float32
            moved |= not torch.equal(q, r)
    # Rounding turns single weights of Adam's step about; a typical weight moves 1e-3 in these steps.
    for distances, most in ((apart, 1e-4), (rounded, 2e-4)):
        assert torch.stack(distances).mean() < most
        assert max(distances) < 5e-4
    assert moved, "the products are those of another precision"


def test_a_killed_group_continues_as_a_group_or_one_by_one(tmp_path):
    config = _config("td3_bc")
    _alone(config, tmp_path / "alone")
    for name in ("group", "single"):
        calls = []

        def dying(position, policy, seeds, calls=calls):
            calls.append(position)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return _submit(position, policy, seeds)

        with pytest.raises(KeyboardInterrupt):
            train_policies(_runs(config, tmp_path / name), config, dying)
    steps = {run.step for run in _runs(config, tmp_path / "group")}
    assert steps == {0, 8}, "killed while some were written down and some were not"
    train_policies(_runs(config, tmp_path / "group"), config, _submit)
    _alone(config, tmp_path / "single")
    _same_files(config, tmp_path / "alone", tmp_path / "group")
    _same_files(config, tmp_path / "alone", tmp_path / "single")


def test_an_evaluation_sees_the_policy_of_its_step_though_training_goes_on(tmp_path):
    config = _config("td3_bc", fresh_episodes=0)
    states = np.random.default_rng(0).normal(size=(4, 77)).astype(np.float32)
    late, seen = [], []

    class Late(Future):
        """Its episodes are run when the result is asked for, after the next steps of training."""

        def __init__(self, policy):
            super().__init__()
            self.policy, self.early = policy, policy(states)

        def result(self, timeout=None):
            np.testing.assert_array_equal(self.policy(states), self.early)
            seen.append(self.early)
            return Evaluation(np.full(3, float(len(seen))), np.ones(3, bool))

    def submit(position, policy, seeds):
        late.append(Late(policy))
        return late[-1]

    train_policies(_runs(config, tmp_path, PAIRS[:1]), config, submit)
    assert len(seen) == 3
    assert np.abs(seen[0] - seen[2]).max() > 1e-4
    kept = Policy.load(checkpoint_file(tmp_path / "0_3", "td3_bc", "best_eval"), COMPOSUITE)
    np.testing.assert_allclose(kept(states), seen[2], atol=1e-6)


def _iql(**options):
    return IQL.build(77, 8, IQLConfig(hidden_dims=(16, 16), **options), seed=0, device=CPU, max_steps=10)


@pytest.mark.parametrize("gaussian", [False, True])
def test_an_iql_step_is_the_formulas_in_their_order(gaussian):
    learner, batch = _iql(gaussian=gaussian, tau=0.25), _batch()
    plain = copy.deepcopy(learner.modules)
    optimizers = {n: torch.optim.Adam(plain[n].parameters(), 3e-4) for n in ("actor", "critic", "value")}
    losses = learner.update(batch)

    with torch.no_grad():
        q = plain["critic_target"](batch.states, batch.actions).min(dim=0).values
        next_v = plain["value"](batch.next_states)
    u = q - plain["value"](batch.states)
    value_loss = torch.stack([(0.3 if x.item() < 0 else 0.7) * x**2 for x in u]).mean()
    value_loss.backward()
    optimizers["value"].step()
    target = batch.rewards + 0.99 * (1 - batch.dones) * next_v
    values = plain["critic"](batch.states, batch.actions)
    critic_loss = sum(((v - target) ** 2).mean() for v in values) / 2
    critic_loss.backward()
    optimizers["critic"].step()
    with torch.no_grad():
        for p, t in zip(plain["critic"].parameters(), plain["critic_target"].parameters(), strict=True):
            t += 0.25 * (p - t)
    weight = torch.exp(3.0 * u.detach()).clamp(max=100.0)
    mean = plain["actor"](batch.states)
    if gaussian:
        distribution = torch.distributions.Normal(mean, plain["actor"].log_std.exp())
        actor_loss = (weight * -distribution.log_prob(batch.actions).sum(1)).mean()
    else:
        actor_loss = (weight * ((mean - batch.actions) ** 2).sum(1)).mean()
    actor_loss.backward()
    optimizers["actor"].step()

    for name, expected in (("value_loss", value_loss), ("critic_loss", critic_loss), ("actor_loss", actor_loss)):
        torch.testing.assert_close(losses[name], expected.detach())
    for name, module in plain.items():
        ours = learner.modules[name].state_dict()
        for key, expected in module.state_dict().items():
            torch.testing.assert_close(ours[key], expected, atol=1e-6, rtol=1e-5)


def test_iqls_actor_rate_is_a_cosine_to_zero_and_its_weights_are_clipped():
    learner, batch = _iql(beta=1000.0, max_weight=2.0), _batch()
    rates = []
    for _ in range(10):
        learner.update(batch)
        rates.append(learner.networks.optimizers["actor"].param_groups[0]["lr"])
    assert rates[0] == pytest.approx(3e-4)
    assert rates[5] == pytest.approx(1.5e-4)
    assert 0 < rates[-1] < 1e-5
    errors = (learner.actor(batch.states) - batch.actions).square().sum(1).mean()
    assert learner.update(batch)["actor_loss"] <= 2.0 * errors + 1e-5


def test_iql_clones_what_it_is_shown():
    learner = _iql(beta=0.0, learning_rate=3e-3)
    learner.max_steps = 400
    data = ReplayData.of(random_transitions(), PolicyConfig(), COMPOSUITE, CPU)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        losses = learner.update(data.batch(torch.randint(len(data), (64,), generator=generator)))
    assert losses["actor_loss"] / 8 < 0.05


def test_iqls_settings_are_checked():
    with pytest.raises(ConfigError, match=r"expectile 1\.5"):
        IQLConfig(expectile=1.5)
