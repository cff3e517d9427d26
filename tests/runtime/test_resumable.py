"""Every training loop stops when it is asked to, goes on to the same numbers, and survives a damaged or other file."""

from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
import torch

from corl.bulk import train_policies
from corl.config import PolicyConfig
from corl.evaluate import Evaluation, evaluate
from corl.finetune import load_agent
from corl.multitask import TaskData
from corl.multitask_config import MultitaskConfig
from corl.multitask_run import MultitaskRun, checkpoint_name, train_multitask
from corl.online import OnlinePolicy, OnlineRun, train_online
from corl.online_config import OnlineConfig
from corl.online_replay import ObservationCode
from corl.policy import checkpoint_file
from corl.replay import ReplayData
from corl.run import PolicyRun
from corl.sac import SAC, SACConfig
from corl.td3_bc import TD3BC, TD3BCConfig
from corl.train import train_policy
from diffusion.config import TrainConfig
from diffusion.denoisers import DenoiserConfig
from diffusion.pool import Pool
from diffusion.train import Training, train
from envs.pool import EnvPool
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.state_transform import StateTransform
from runtime import interrupt
from runtime.checkpoint import load_checkpoint
from runtime.errors import DataError
from runtime.metrics import read_metrics
from tests.corl.test_corl import CPU, TASK, LineWorld
from tests.recordings import random_transitions
from tests.resuming import expect_anew, expect_equal, stopped

TASKS = [TASK, CompoSuiteTask.parse("IIWA_Plate_GoalWall_Shelf")]
GENERATOR = TrainConfig(steps=12, small_batch_size=8, log_freq=4, precision="float32")
POLICY = PolicyConfig(
    max_timesteps=12,
    batch_size=8,
    eval_freq=6,
    n_episodes=2,
    learners={"td3_bc": TD3BCConfig(hidden_dims=(8, 8))},
    precision="float32",
)
MULTITASK = MultitaskConfig(
    algorithm="td3_bc",
    max_timesteps=12,
    batch_size=8,
    eval_freq=8,
    log_freq=6,
    n_episodes=2,
    learners={"td3_bc": TD3BCConfig(hidden_dims=(8, 8))},
)
ONLINE = OnlineConfig(
    max_timesteps=36,
    num_envs=2,
    learning_starts=12,
    eval_freq=30,
    n_episodes=2,
    horizon=5,
    log_freq=18,
    batch_size=8,
    sac=SACConfig(hidden_dims=(8, 8)),
)


@pytest.fixture(autouse=True)
def _small_blocks_and_nobody_asks(monkeypatch):
    monkeypatch.setattr("corl.run._BLOCK", 2)
    monkeypatch.setattr("corl.multitask_run._BLOCK", 2)
    interrupt.clear()
    yield
    interrupt.clear()


def _weight(policy):
    return float(next(policy.actor.parameters()).detach().sum())


def open_generator(folder, config=GENERATOR):
    pool, network = (
        Pool.of([random_transitions(rows=64)], COMPOSUITE, timeouts_as_terminals=False),
        DenoiserConfig(hidden=8, depth=1, heads=1),
    )
    run = Training(pool, network, config, folder, key="k", seed=0)
    run.restore()
    return run


def generator(folder, config=GENERATOR):
    pool, network = (
        Pool.of([random_transitions(rows=64)], COMPOSUITE, timeouts_as_terminals=False),
        DenoiserConfig(hidden=8, depth=1, heads=1),
    )
    train(pool, network, config, folder / "model.pt", seed=0, device=CPU, info={"key": "k"})
    return [load_checkpoint(folder / "model.pt")["ema"], _figures(folder)]


def _figures(folder):
    return [{**row, "SPS": 0, "seconds": 0} for row in read_metrics(folder / "metrics.jsonl")]


def _open_policy(folder, config, seed=0):
    data = ReplayData.of(random_transitions(), config, COMPOSUITE, CPU)
    return PolicyRun(data, config, folder, seed=seed, device=CPU, key="k")


def open_policy(folder, config=POLICY):
    return _open_policy(folder, config)


def policy(folder, config=POLICY):
    def evaluated(policy, seeds):
        return Evaluation(np.full(len(seeds), _weight(policy)), np.zeros(len(seeds), bool))

    scores = train_policy(_open_policy(folder, config), evaluated)
    return [scores, load_checkpoint(checkpoint_file(folder, "td3_bc", "best_eval"))["critic"], _figures(folder)]


def group(folder, config=POLICY):
    runs = [_open_policy(where, config, seed) for seed, where in enumerate((folder, folder / "second"))]

    def submit(i, policy, seeds):
        future = Future()
        future.set_result(evaluate(policy, LineWorld(), seeds))
        return future

    scores = train_policies(runs, config, submit)
    lost = [score for score in scores if isinstance(score, DataError)]
    if lost:
        raise lost[0]
    return [scores, *(_figures(run.folder) for run in runs), [run.learner.actor.state_dict() for run in runs]]


def open_multitask(folder, config=MULTITASK):
    data = TaskData([random_transitions(), random_transitions(seed=1)], config, COMPOSUITE, CPU)
    return MultitaskRun(data, config, folder, seed=1, device=CPU, key="k", layout=COMPOSUITE)


def multitask(folder, config=MULTITASK):
    def judged(policy, tasks):
        return {task: Evaluation(np.full(2, _weight(policy(task))), np.array([True, False])) for task in tasks}

    results = train_multitask(open_multitask(folder, config), judged, TASKS[1:], TASKS[:1], "test")
    return [results, _figures(folder), load_checkpoint(folder / checkpoint_name("last", 1))["critic"]]


ENVIRONMENTS = []


def _environment():
    """Two environments, made once: every run begins with a seeded reset."""
    if not ENVIRONMENTS:
        ENVIRONMENTS.append(EnvPool(TASK, 2, horizon=5))
    return ENVIRONMENTS[0]


def open_online(folder, config=ONLINE):
    code = ObservationCode(StateTransform.unscaled(COMPOSUITE))
    agent = SAC.build(code.dim, code.action_dim, config.sac, seed=0, device=CPU)
    return OnlineRun(OnlinePolicy(agent, code, TASK, CPU), _environment(), config, folder, seed=5, key="k")


def open_fine_tune(folder, config=ONLINE):
    offline = folder.with_name("offline")
    if not offline.exists():
        multitask(offline)
    agent, code = load_agent(offline / checkpoint_name("last", 1), COMPOSUITE, seed=0, device=CPU)
    return OnlineRun(OnlinePolicy(agent, code, TASK, CPU), _environment(), config, folder, seed=5, key="k")


def _learn(run):
    train_online(run, lambda policy, seeds: Evaluation(np.full(2, float(run.step)), np.array([True, False])))
    return [run.agent.state_dict(), _figures(run.folder)]


def online(folder, config=ONLINE):
    return _learn(open_online(folder, config))


def fine_tune(folder, config=ONLINE):
    return _learn(open_fine_tune(folder, config))


LOOPS = {loop.__name__: loop for loop in (generator, policy, group, multitask, online, fine_tune)}
STOPS = {"generator": 5, "policy": 12, "group": 12, "multitask": 12, "online": 20, "fine_tune": 20}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_that_is_asked_to_stop_goes_on_to_the_same_numbers(name, tmp_path):
    loop = LOOPS[name]
    whole = loop(tmp_path / "whole")
    left = stopped(loop, tmp_path / "cut", STOPS[name])
    assert left.exists()
    expect_equal(loop(tmp_path / "cut"), whole)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_that_is_killed_goes_on_from_what_was_due(name, tmp_path, monkeypatch):
    """With `checkpoint_seconds` 0 each step is due."""
    config = {"generator": GENERATOR, "policy": POLICY, "group": POLICY, "multitask": MULTITASK}.get(name, ONLINE)
    loop = LOOPS[name]
    whole = loop(tmp_path / "whole")
    update, taken = torch.optim.Adam.step, []

    def dying(self, *arguments):
        taken.append(None)
        if len(taken) == STOPS[name]:
            raise KeyboardInterrupt
        return update(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.Adam, "step", dying)
        patch.setattr(torch.optim.AdamW, "step", dying)
        loop(tmp_path / "cut", replace(config, checkpoint_seconds=0.0))
    assert (tmp_path / "cut" / "resume.pt").exists()
    expect_equal(loop(tmp_path / "cut"), whole)


OPEN = {
    "generator": open_generator,
    "policy": open_policy,
    "multitask": open_multitask,
    "online": open_online,
    "fine_tune": open_fine_tune,
}


@pytest.mark.parametrize("name", OPEN)
def test_a_damaged_or_other_file_is_named_in_one_line_and_training_begins_anew(name, tmp_path, caplog):
    left = stopped(LOOPS[name], tmp_path / "cut", STOPS[name])
    expect_anew(lambda folder: OPEN[name](folder).state_dict(), left, caplog)


def test_a_policy_of_a_group_whose_file_is_damaged_begins_anew_and_the_others_go_on(tmp_path):
    whole = group(tmp_path / "whole")
    left = stopped(group, tmp_path / "cut", STOPS["group"])
    left.write_bytes(left.read_bytes()[:300])
    again = group(tmp_path / "cut")
    assert again[1:3] == whole[1:3]
    for one, two in zip(again[3], whole[3], strict=True):
        for key in one:  # a cohort of one is multiplied otherwise than one of two
            torch.testing.assert_close(one[key], two[key], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing", "misnamed", "huge", "folder", "infinite"])
def test_a_replay_that_is_damaged_is_named_and_learning_begins_anew(damage, tmp_path, caplog):
    fresh = open_online(tmp_path / "fresh").state_dict()
    left = stopped(online, tmp_path / "cut", STOPS["online"])
    part = next((left.parent / "replay").iterdir())
    if damage == "truncated":
        part.write_bytes(part.read_bytes()[:200])
    elif damage == "foreign":
        np.save(part, np.zeros((3, 2)))
    elif damage == "missing":
        part.unlink()
    elif damage == "huge":  # a header that claims 10^13 rows
        rows = str(len(np.load(part))).encode()
        part.write_bytes(part.read_bytes().replace(b"(" + rows + b",", b"(9999999999999,", 1))
    elif damage == "folder":
        part.unlink()
        part.mkdir()
    elif damage == "infinite":
        np.save(part, np.full_like(np.load(part), np.inf))
    else:
        part.rename(part.with_name("0_notes.npy"))
    with caplog.at_level("WARNING"):
        run = open_online(tmp_path / "cut")
    assert caplog.text.count("training starts anew") == 1
    expect_equal(run.state_dict(), fresh)
    assert not (tmp_path / "cut" / "replay").exists()


def test_a_file_that_the_disk_does_not_give_is_kept(tmp_path, monkeypatch):
    left = stopped(policy, tmp_path / "cut", STOPS["policy"])

    def refuse(*_, **__):
        raise OSError(5, "broken")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="broken"):
        patch.setattr(torch, "load", refuse)
        policy(tmp_path / "cut")
    assert left.exists()
    expect_equal(policy(tmp_path / "cut"), policy(tmp_path / "whole"))


def _poisoned(monkeypatch, steps):
    """Optimiser step number `steps` leaves weights that are not numbers."""
    update, taken = torch.optim.Adam.step, []

    def step(self, *arguments):
        result = update(self, *arguments)
        taken.append(None)
        if len(taken) == steps:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(torch.nan)
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)


# The last step of an optimiser: nothing looks at what it leaves but the check before the commit.
LAST = {"generator": 12, "multitask": 18, "policy": 18}


@pytest.mark.parametrize("name", LAST)
def test_what_diverged_in_the_last_step_is_not_committed(name, tmp_path, monkeypatch):
    """Of a policy the critic alone diverges there, which no evaluation sees."""
    if name != "generator":
        critic = TD3BC.step
        calls = []

        def step(self, networks, *arguments):
            losses = critic(self, networks, *arguments)
            calls.append(None)
            if len(calls) == 12:
                with torch.no_grad():
                    next(networks.modules["critic"].parameters()).fill_(torch.nan)
            return losses

        monkeypatch.setattr(TD3BC, "step", step)
    else:
        _poisoned(monkeypatch, LAST[name])
    with pytest.raises(DataError, match="12 is not finite: training has diverged; learn with a smaller learning rate"):
        LOOPS[name](tmp_path)
    kept = [path for path in tmp_path.rglob("*.pt") if not _finite(load_checkpoint(path))]
    assert not kept
    assert not (tmp_path / "model.pt").exists()
    assert not (tmp_path / checkpoint_name("last", 1)).exists()


def _finite(value):
    if isinstance(value, torch.Tensor):
        return not value.isnan().any()
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return True


@pytest.mark.parametrize("name", ["online", "fine_tune"])
def test_an_online_agent_whose_critic_diverged_is_not_written_down(name, tmp_path, monkeypatch):
    run = OnlineRun.record

    def record(self, result):
        networks = self.agent.state_dict()["critic"]
        next(iter(networks.values())).fill_(torch.nan)
        run(self, result)

    monkeypatch.setattr(OnlineRun, "record", record)
    with pytest.raises(DataError, match="step 30 is not finite"):
        LOOPS[name](tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_member_of_a_group_that_diverged_is_lost_alone_also_at_a_stop(tmp_path, monkeypatch):
    data = ReplayData.of(random_transitions(), POLICY, COMPOSUITE, CPU)
    runs = [PolicyRun(data, POLICY, tmp_path / str(i), seed=i, device=CPU) for i in range(2)]
    with torch.no_grad():
        runs[0].learner.modules["critic"].weights[0].fill_(torch.nan)
    interrupt.request(15)
    with pytest.raises(interrupt.Interrupted):
        train_policies(runs, POLICY, None)
    assert [(tmp_path / str(i) / "resume.pt").exists() for i in range(2)] == [False, True]
