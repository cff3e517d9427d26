"""Factored networks against plain loops, multitask learners against autograd, baselines from the command line."""

import csv
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from corl.evaluate import Evaluation
from corl.factored import Choice, ElementLayer, FactoredActor, FactoredCritic, FactoredValue
from corl.multitask import TaskData, TaskPolicy, transform_of
from corl.multitask_config import ALGORITHMS, MultitaskConfig
from corl.multitask_learner import make_learner
from corl.multitask_run import MultitaskRun, checkpoint_name, load_policy, train_multitask
from corl.td3_bc import TD3BCConfig, actor_loss, critic_loss, target_values
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.splits import Split, save_split
from pipeline.commands.baseline import baseline_command
from pipeline.stages.score_table import SCORES_FILE, read_score_table
from runtime.cli import parse_flags
from runtime.errors import ConfigError
from runtime.metrics import read_metrics
from tests.benchmark_axes import benchmark_axes
from tests.recordings import random_transitions, write_random_recordings

CPU = torch.device("cpu")
NAMES = ("IIWA_Box_None_Push", "IIWA_Plate_GoalWall_Shelf", "IIWA_Box_None_Trashcan")
TASKS = [CompoSuiteTask.parse(name) for name in NAMES]
NETWORKS = ("transformer", "compositional", "cp")


def _config(**options):
    values = {"max_timesteps": 12, "batch_size": 8, "eval_freq": 6, "log_freq": 3, "n_episodes": 2, "horizon": 4}
    return MultitaskConfig(**(values | options))


def _observations(size=6, seed=0):
    random = np.random.default_rng(seed)
    states = random.normal(size=(size, 77)).astype(np.float32)
    ids = np.stack([TASKS[i % 3].one_hot for i in range(size)])
    return torch.from_numpy(COMPOSUITE.join_ids(states, ids)), ids


def _count(module):
    return sum(p.numel() for p in module.parameters())


@benchmark_axes
@pytest.mark.parametrize(
    ("network", "actor", "critic"),
    [("transformer", 106_006, 106_143), ("compositional", 107_952, 108_228), ("cp", 107_936, 106_372)],
)
def test_the_sizes_are_the_published_ones(network, actor, critic):
    assert _count(FactoredActor(network, COMPOSUITE)) == actor
    assert _count(FactoredCritic(network, COMPOSUITE)) == 2 * critic
    if network == "cp":
        assert _count(FactoredValue(network, COMPOSUITE)) == 104_324


@pytest.mark.parametrize("name", ["compositional", "cp"])
def test_the_graph_network_is_what_a_loop_over_samples_and_nodes_gives(name):
    critic = FactoredCritic(name, COMPOSUITE)
    net = critic.net
    for norm in net.norms.values():
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    observations, _ = _observations()
    actions = torch.rand(len(observations), 8)
    values = critic(observations, actions)
    axes = {f.name: f.axis for f in COMPOSUITE.factors}
    for k in range(len(observations)):
        task = TASKS[k % 3]
        for c in range(2):
            before = torch.zeros(0)
            for node in net.nodes:
                element = task.index(axes[node.factor])
                h = observations[k, COMPOSUITE.slices_with_ids[node.factor]]
                if node.factor == "proprioception":
                    h = torch.cat([h, actions[k]])
                for i in range(len(node.own) + 1):
                    if i == len(node.own):
                        h = torch.cat([before, h])
                    layer = net.layers[f"{node.factor}_{i}"]
                    h = h @ layer.weight[c, element] + layer.bias[c, element, 0]
                    if f"{node.factor}_{i}" in net.norms:
                        norm = net.norms[f"{node.factor}_{i}"]
                        h = torch.relu(F.layer_norm(h, h.shape, norm.weight[c, element], norm.bias[c, element]))
                before = h
            torch.testing.assert_close(values[c, k], before[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(critic(observations, actions, 1), values[:1])


def test_the_transformer_is_what_torch_layers_of_one_network_give():
    critic = FactoredCritic("transformer", COMPOSUITE)
    net = critic.net
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    observations, ids = _observations()
    actions = torch.rand(len(observations), 8)
    values = critic(observations, actions)
    for c in range(2):
        linear = lambda layer, x, c=c: F.linear(x, layer.weight[c, 0].T, layer.bias[c, 0, 0])  # noqa: E731
        tokens = []
        for factor in COMPOSUITE.factors:
            encoder, part = net.encoders[factor.name], observations[:, COMPOSUITE.slices_with_ids[factor.name]]
            rows = []
            for k in range(len(observations)):
                element = TASKS[k % 3].index(factor.axis)
                rows.append(part[k] @ encoder.weight[c, element] + encoder.bias[c, element, 0])
            tokens.append(torch.stack(rows))
        tokens.append(linear(net.encoders["action"], actions))
        x = torch.stack(tokens, dim=1) + net.positions
        condition = F.silu(linear(net.embed_out, F.silu(linear(net.embed_in, torch.from_numpy(ids)))))
        m = linear(net.modulation, condition)[:, None].chunk(6, dim=-1)
        norm = lambda x: F.layer_norm(x, (72,), eps=1e-6)  # noqa: E731
        h = norm(x) * (1 + m[1]) + m[0]
        attention = torch.nn.MultiheadAttention(72, 4, batch_first=True)
        with torch.no_grad():
            attention.in_proj_weight.copy_(net.qkv.weight[c, 0].T)
            attention.in_proj_bias.copy_(net.qkv.bias[c, 0, 0])
            attention.out_proj.weight.copy_(net.attention_out.weight[c, 0].T)
            attention.out_proj.bias.copy_(net.attention_out.bias[c, 0, 0])
        x = x + m[2] * attention(h, h, h)[0]
        h = norm(x) * (1 + m[4]) + m[3]
        x = x + m[5] * linear(net.mlp_out, F.gelu(linear(net.mlp_in, h), approximate="tanh"))
        shift, scale = linear(net.final_modulation, condition)[:, None].chunk(2, dim=-1)
        expected = linear(net.final, (norm(x) * (1 + scale) + shift).mean(dim=1))[:, 0]
        torch.testing.assert_close(values[c], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("elements", [[0, 3, 1, 0, 3, 3], [2, 2, 2, 2, 2, 2]])
def test_sorted_by_element_a_layer_gives_what_the_products_with_all_elements_give(elements):
    layer = ElementLayer(2, 4, 5, 3)
    torch.nn.init.normal_(layer.bias)
    choice, x = Choice(torch.eye(4)[elements]), torch.randn(2, 6, 5)
    by_group = layer(x, choice)
    gradients = torch.autograd.grad(by_group.square().sum(), (layer.weight, layer.bias))
    choice.groups = None  # as on a GPU
    every = layer(x, choice)
    torch.testing.assert_close(by_group, every)
    for ours, theirs in zip(
        gradients, torch.autograd.grad(every.square().sum(), (layer.weight, layer.bias)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_transformer_starts_at_zero():
    observations, _ = _observations()
    assert (FactoredActor("transformer", COMPOSUITE)(observations) == 0).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_comes_to_act_as_the_data_do(algorithm):
    config = _config(algorithm=algorithm, max_timesteps=60, learners={"td3_bc": TD3BCConfig(alpha=0.1)})
    data = TaskData([random_transitions(60, task, seed=i) for i, task in enumerate(TASKS)], config, COMPOSUITE, CPU)
    learner = make_learner(config, COMPOSUITE, seed=0, device=CPU)
    batch = data.batch(torch.arange(40))
    error = lambda: F.mse_loss(learner.actor(batch.states), batch.actions).item()  # noqa: E731
    before = error()
    for _ in range(60):
        losses = learner.update(batch)
    assert error() < 0.9 * before
    assert all(torch.isfinite(loss) for loss in losses.values())
    actions = TaskPolicy(learner.actor, data.transform, TASKS[0])(np.zeros((3, 77), np.float32))
    assert actions.shape == (3, 8)
    assert (np.abs(actions) <= 1).all()


@pytest.mark.parametrize("network", ["transformer", "compositional"])
def test_a_multitask_step_moves_the_weights_as_autograd_and_adam_do(network):
    config = _config(algorithm=f"{network}_td3_bc", learners={"td3_bc": TD3BCConfig(policy_freq=1)})
    learner, plain = (make_learner(config, COMPOSUITE, seed=0, device=CPU) for _ in range(2))
    batch = TaskData([random_transitions(60, task) for task in TASKS], config, COMPOSUITE, CPU).batch(torch.arange(30))
    noise = torch.randn(30, 8)
    learner.update(batch, (noise,))
    nets = plain.modules
    target = target_values(nets["actor_target"], nets["critic_target"], batch, noise, config.learner)
    for name, loss in (
        ("critic", lambda: critic_loss(nets["critic"], batch, target.detach())),
        ("actor", lambda: actor_loss(nets["actor"], nets["critic"], batch, 2.5)[0]),
    ):
        parameters = list(nets[name].parameters())
        gradients = torch.autograd.grad(loss(), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 3e-4 * gradient / (gradient.abs() + 1e-8)  # Adam's first step
        for ours, theirs in zip(learner.modules[name].parameters(), parameters, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_first_step_in_bfloat16_has_the_losses_of_one_in_float32(algorithm):
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = _config(algorithm=algorithm, precision=precision)
        learner = make_learner(config, COMPOSUITE, seed=0, device=CPU)
        data = TaskData([random_transitions(60, task, seed=i) for i, task in enumerate(TASKS)], config, COMPOSUITE, CPU)
        losses[precision] = learner.update(data.batch(torch.arange(180)))
    for name, value in losses["float32"].items():
        torch.testing.assert_close(losses["bfloat16"][name], value, rtol=0.05, atol=0.02)


def test_batches_carry_the_ids_of_their_rows_and_normalised_states():
    config = _config(normalise=True, hide_velocities=True, canonical_quaternions=False)
    parts = [random_transitions(60, task, seed=i) for i, task in enumerate(TASKS)]
    data = TaskData(parts, config, COMPOSUITE, CPU)
    states, ids = COMPOSUITE.split_ids(data.batch(torch.tensor([0, 70, 130])).states.numpy())
    np.testing.assert_array_equal(ids, np.stack([task.one_hot for task in TASKS]))
    everything, _ = COMPOSUITE.split_ids(data.batch(torch.arange(180)).states.numpy())
    hidden = np.zeros(77, bool)
    for part in COMPOSUITE.velocities:
        hidden[part] = True
    np.testing.assert_allclose(everything.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(everything[:, ~hidden].std(axis=0), 1, atol=5e-3)
    assert (states[:, hidden] == 0).all()
    observed = data.transform.apply(parts[1].states[10:11], TASKS[1])
    np.testing.assert_allclose(observed, data.batch(torch.tensor([70])).states.numpy(), atol=1e-6)


def test_hidden_velocities_without_normalisation_are_refused():
    with pytest.raises(ConfigError, match="hide_velocities"):
        _config(hide_velocities=True)


def _pretend(policy_of, tasks):
    """Returns that depend on the policy, without a simulator."""
    return {
        task: Evaluation(policy_of(task)(np.ones((2, 77), np.float32)).sum(axis=1), np.array([True, False]))
        for task in tasks
    }


def _train(folder, evaluate=_pretend):
    config = _config(algorithm="compositional_td3_bc")
    data = TaskData([random_transitions(60, task, seed=i) for i, task in enumerate(TASKS)], config, COMPOSUITE, CPU)
    run = MultitaskRun(data, config, folder, seed=1, device=CPU, key="k", layout=COMPOSUITE)
    return train_multitask(run, evaluate, TASKS[2:], TASKS[:2], "test")


def test_a_run_that_was_killed_ends_with_the_numbers_of_one_that_was_not(tmp_path):
    whole = _train(tmp_path / "whole")

    def killed(policy_of, tasks):
        if (tmp_path / "cut" / "eval_step6_seed1.json").exists():
            raise KeyboardInterrupt
        return _pretend(policy_of, tasks)

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "cut", killed)
    resumed = _train(tmp_path / "cut")
    assert resumed == whole
    logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    a, b = (
        load_policy(tmp_path / name / checkpoint_name("last", 1), COMPOSUITE)(TASKS[0]) for name in ("whole", "cut")
    )
    states = np.random.default_rng(0).normal(size=(4, 77)).astype(np.float32)
    np.testing.assert_array_equal(a(states), b(states))
    assert whole["best_score_checkpoint"]["avg_score"] >= whole["final_eval_avg_score"]


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_baseline_from_the_command_line_writes_the_published_files_and_does_nothing_twice(tmp_path):
    write_random_recordings(tmp_path / "data", TASKS[:2])
    save_split(tmp_path / "splits" / "mini" / "split_0.json", Split(tuple(TASKS[:2]), tuple(TASKS[2:])))
    (tmp_path / "config.yaml").write_text("{horizon: 4, n_episodes: 2, log_freq: 2}\n")
    flags = f"--config {tmp_path / 'config.yaml'} --num_train 2 --seeds 10 --max_timesteps 4 --batch_size 8 "
    flags += f"--eval_freq 2 --experiment_type mini --task_list_path {tmp_path / 'splits'} --cluster local --cpus 1 "
    flags += f"--data_path {tmp_path / 'data'} --results_path {tmp_path / 'results'} --logs_path {tmp_path / 'logs'}"
    parse_flags(baseline_command("transformer"), flags.split())
    folder = tmp_path / "results" / "transformer_baseline"
    names = {path.name for path in (folder / "seed_10").iterdir()}
    expected = {f"{which}_checkpoint_seed10.pt" for which in ("best_score", "best_success", "last")}
    expected |= {f"eval_step{step}_seed10.json" for step in (2, 4)} | {"final_results_seed10.json"}
    assert expected <= names
    scores = read_score_table(folder / SCORES_FILE)
    assert [row.task for row in scores if row.method == "transformer_td3_bc"] == [TASKS[2].name]
    assert {row.method for row in scores} == {f"transformer_td3_bc{word}" for word in ("", " last", " train")}
    table = _rows(folder / "transformer_baseline_results.csv")
    assert [row["task"] for row in table] == [TASKS[2].name, "OVERALL_AVERAGE"]
    assert {"score_seed10", "solved_seed10", "avg_score", "avg_success"} <= set(table[0])
    trained = _rows(folder / "transformer_baseline_results_train_tasks.csv")
    assert [row["task"] for row in trained[:2]] == [task.name for task in TASKS[:2]]
    before = json.loads((folder / "seed_10" / "final_results_seed10.json.json").read_text())
    parse_flags(baseline_command("transformer"), flags.split())
    assert json.loads((folder / "seed_10" / "final_results_seed10.json.json").read_text()) == before
    assert list((tmp_path / "logs" / "transformer_baseline_logs").iterdir())


def test_normalisation_is_off_as_published_unless_asked_for():
    assert (transform_of([random_transitions(60, TASKS[0], seed=0)], MultitaskConfig(), COMPOSUITE).std == 1).all()
