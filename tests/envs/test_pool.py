"""Environments over worker processes: the right batches, the right order of calls, and workers that die."""

import multiprocessing
import os
import pickle
import signal
import threading
import time

import gymnasium
import numpy as np
import pytest

from envs.pool import UNSEEDED, EnvPool, WorkerError
from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from runtime.errors import ConfigError, TaskError

TASK = CompoSuiteTask.parse("IIWA_Box_None_PickPlace")


@pytest.fixture(params=[0, 2], ids=["here", "workers"], scope="module")
def pool(request):
    with EnvPool(TASK, 5, workers=request.param, horizon=3) as made:
        yield made


@pytest.mark.parametrize("workers", range(1, 9))
def test_no_worker_gets_more_episodes_than_it_has_environments(workers):
    env = EnvPool.__new__(EnvPool)
    env._pipes = [None] * workers
    for num_envs in range(workers, 25):
        own = np.diff(env._split(num_envs))
        assert own.sum() == num_envs
        for batch in range(1, num_envs + 1):
            given = np.diff(env._split(batch))
            assert given.sum() == batch
            assert (given <= own).all()


@pytest.mark.parametrize("batch", [5, 3, 1])
def test_a_batch_that_workers_cannot_share_evenly_is_run_whole_and_as_in_one_process(pool, batch):
    actions = np.random.default_rng(0).uniform(-1, 1, (4, batch, 8))

    def run(environments):
        first = environments.reset(range(3, 3 + batch))
        assert first.shape == (batch, 77)
        return [first, *(array for action in actions for array in environments.step(action))]

    with EnvPool(TASK, batch, horizon=3) as alone:
        for one, other in zip(run(pool), run(alone), strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_ended_episode_stays_where_it_ended_without_reward():
    with EnvPool(TASK, 2, horizon=2) as env:
        env.reset([0, 1])
        for _ in range(2):
            last, _, _, truncated, _ = env.step(np.ones((2, 8)))
        assert truncated.all()
        again, rewards, *_ = env.step(np.ones((2, 8)))
        np.testing.assert_array_equal(again, last)
        assert (rewards == 0).all()


@pytest.mark.parametrize("rows", [1, 2, 4, 5])
def test_a_batch_of_another_size_is_refused_and_nothing_is_stepped(pool, rows):
    pool.reset([1, 2, 3])
    with pytest.raises(ValueError, match=rf"actions of shape \({rows}, 8\), expected \(3, 8\)"):
        pool.step(np.ones((rows, 8)))
    with pytest.raises(ValueError, match=f"{rows} seeds, expected 3"):
        pool.restart([None] * rows)
    with pytest.raises(ValueError, match=f"{rows} seeds, expected 3"):
        pool.step(np.ones((3, 8)), [None] * rows)
    after = pool.step(np.ones((3, 8)))[0]
    pool.reset([1, 2, 3])
    np.testing.assert_array_equal(pool.step(np.ones((3, 8)))[0], after)


def test_actions_of_another_width_or_not_finite_are_refused_and_nothing_is_stepped(pool):
    pool.reset([1, 2])
    for wrong in (np.ones((2, 7)), np.ones(8), np.ones((2, 8, 1))):
        with pytest.raises(ValueError, match=r"expected \(2, 8\)"):
            pool.step(wrong)
    actions = np.ones((2, 8))
    actions[1, 3] = np.nan
    with pytest.raises(ValueError, match="action 1 of the batch"):
        pool.step(actions)
    actions = np.ones((2, 8))
    after = pool.step(actions)[0]
    pool.reset([1, 2])
    np.testing.assert_array_equal(pool.step(actions)[0], after)


def test_seeds_that_are_none_are_refused(pool):
    for wrong in ([], range(6)):
        with pytest.raises(ValueError, match="expected 1 to 5"):
            pool.reset(wrong)
    with pytest.raises(ConfigError, match=f"seed {2**32}: expected 0 to"):
        pool.reset([0, 1, 2**32])  # an error in a worker is the error here
    with pytest.raises(gymnasium.error.ResetNeeded):
        pool.step(np.zeros((1, 8)))


def test_stepping_before_a_reset_is_refused_and_after_another_task_was_assigned(pool):
    pool.reset([1])
    pool.assign(TASK)
    for call in (lambda: pool.step(np.zeros((1, 8))), lambda: pool.restart([1]), pool.seeds):
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) first"):
            call()


def test_an_episode_can_start_anew_in_place_of_a_step_with_a_seed_or_without(pool):
    pool.reset([5, 6, 7])
    actions = np.full((3, 8), 0.5)
    plain = pool.step(actions)[0]
    pool.reset([5, 6, 7])
    observations, rewards, terminated, truncated, _ = pool.step(actions, [None, 9, UNSEEDED])
    np.testing.assert_array_equal(observations[0], plain[0])
    assert list(rewards[1:]) == [0, 0]
    assert not (terminated | truncated).any()
    seeds = pool.seeds()
    assert seeds[:2] == [5, 9]
    np.testing.assert_array_equal(pool.reset(seeds)[1:], observations[1:])


def test_nothing_can_be_done_after_closing():
    with EnvPool(TASK, 1) as pool:
        pool.reset([0])
    pool.close()
    calls = (lambda: pool.step(np.zeros((1, 8))), lambda: pool.reset([0]), lambda: pool.restart([0]))
    for call in (*calls, lambda: pool.assign(TASK), pool.render, pool.seeds):
        with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="were closed"):
            call()


def test_a_killed_worker_is_named_and_ends_the_others():
    pool = EnvPool(TASK, 4, workers=2)
    pool.reset([1, 2, 3, 4])
    processes = list(pool._processes)
    os.kill(processes[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"worker 2 of 2 ended early \(killed by SIGKILL: out of memory\?\)"):
        for _ in range(2):  # the signal may arrive after the first answer
            pool.step(np.zeros((4, 8)))
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        pool.reset([1])


def test_workers_outlive_a_signal_to_all_processes(pool):
    pool.reset([0, 1])
    for process in pool._processes:  # the process that holds them may have to save first
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)
    assert pool.step(np.zeros((2, 8)))[0].shape == (2, 77)


def test_an_interrupted_call_leaves_no_answer_for_the_next_one():
    with EnvPool(TASK, 2, workers=1) as pool:
        pool.reset([0, 1])
        threading.Timer(0.3, signal.raise_signal, [signal.SIGUSR1]).start()
        before = signal.signal(signal.SIGUSR1, _interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                while True:
                    pool.step(np.zeros((2, 8)))
        finally:
            signal.signal(signal.SIGUSR1, before)
        with pytest.raises((gymnasium.error.ClosedEnvironmentError, gymnasium.error.ResetNeeded)):
            pool.step(np.zeros((2, 8)))


def _interrupt(signum, frame):
    raise KeyboardInterrupt


def test_workers_end_with_the_process_that_holds_them():
    ours, theirs = multiprocessing.Pipe()
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(theirs,))
    holder.start()
    pids = ours.recv()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)


def _hold(pipe):
    pool = EnvPool(TASK, 1, workers=1)
    pipe.send([process.pid for process in pool._processes])
    time.sleep(60)


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_cannot_be_made_leaves_no_process_behind():
    before = set(multiprocessing.active_children())
    with pytest.raises(TaskError, match="task 'lft'"):
        EnvPool("lft", 2, workers=1)
    with pytest.raises(ValueError, match="num_envs 0"):
        EnvPool(TASK, 0)
    assert set(multiprocessing.active_children()) == before


def test_environments_in_other_processes_are_not_copied(pool):
    if pool._processes:
        with pytest.raises(TypeError, match="workers=0"):
            pickle.dumps(pool)
