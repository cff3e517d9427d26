"""Real jobs on this machine: what the loop says of one that fails."""

import logging

from diffusion.config import DenoiserConfig, TrainConfig
from offline_compositional_rl_datasets.hdf5 import task_file
from offline_compositional_rl_datasets.task import Task
from pipeline.config import ClusterConfig, Resources, RetryConfig
from pipeline.jobs import Attempt, Launcher, _after_failure, run_jobs
from pipeline.stages import TrainGenerator

TASK = Task.parse("IIWA_Box_None_Push")


def _run(stage, tmp_path, **retry):
    launcher = Launcher(ClusterConfig(kind="local"), tmp_path / "slurm")
    resources = Resources(memory_gb=1, hours=1, cpus=1, gpus=0)
    return run_jobs([stage], resources, launcher, RetryConfig(retry_delay=0.1, **retry), lambda stage: "done")


def _stage(tmp_path):
    return TrainGenerator(
        data_path=tmp_path,
        dataset_type="expert",
        expert_tasks=(TASK,),
        sources=(),
        network=DenoiserConfig(hidden=8, depth=1, heads=1),
        training=TrainConfig(steps=1),
        seed=0,
        checkpoint=tmp_path / "model" / "model-1.pt",
    )


def test_a_job_that_meets_damaged_data_is_not_tried_again_and_its_reason_is_told(tmp_path, caplog):
    data = task_file(tmp_path, "expert", TASK)
    data.parent.mkdir(parents=True)
    data.write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    with caplog.at_level(logging.WARNING):
        failed = _run(_stage(tmp_path), tmp_path)
    (reason,) = failed.values()
    assert reason.startswith(f"{data}: ")
    assert "trying again" not in caplog.text


def test_a_job_that_fails_by_a_fault_of_the_program_is_tried_once_more(tmp_path, caplog):
    data = task_file(tmp_path, "expert", TASK)
    data.parent.mkdir(parents=True)
    data.write_bytes(b"")
    stage = _stage(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".lock").mkdir()  # no file can be locked here
    with caplog.at_level(logging.WARNING):
        failed = _run(stage, tmp_path)
    assert caplog.text.count("trying again") == 1
    (reason,) = failed.values()
    assert ".lock" in reason
    assert "log.out" not in reason


RETRY = RetryConfig(max_retries=100, retry_delay=0, max_memory_gb=40, max_time_hours=10)


def _attempt(tmp_path, memory_gb=16, hours=4.0):
    resources = Resources(memory_gb=memory_gb, hours=hours, cpus=1, gpus=0)
    return Attempt(_stage(tmp_path), resources, tries=1)


def _tries_until_given_up(attempt, cause):
    """Requests of all further tries, and the reason for giving up."""
    requests = []
    while (verdict := _after_failure(attempt, RETRY, "it failed", cause)) is None:
        requests.append((attempt.resources.memory_gb, attempt.resources.hours))
        attempt.tries += 1
    return requests, verdict


def test_a_job_out_of_memory_gets_more_of_it_up_to_the_cap_and_no_further_try_there(tmp_path):
    requests, verdict = _tries_until_given_up(_attempt(tmp_path), "memory")
    assert requests == [(24, 4.0), (36, 4.0), (40, 4.0)]
    assert verdict == "it failed with 40 GB (max_memory_gb is 40)"


def test_a_job_out_of_time_gets_more_of_it_up_to_the_cap(tmp_path):
    requests, verdict = _tries_until_given_up(_attempt(tmp_path), "time")
    assert requests == [(16, 6.0), (16, 9.0), (16, 10)]
    assert "max_time_hours is 10" in verdict


def test_a_request_above_the_cap_is_never_made_smaller(tmp_path):
    requests, _ = _tries_until_given_up(_attempt(tmp_path, memory_gb=400), "memory")
    assert requests == []


def test_a_submission_that_is_refused_is_tried_three_times_in_all(tmp_path):
    requests, verdict = _tries_until_given_up(_attempt(tmp_path), "refused")
    assert len(requests) == 2
    assert verdict == "it failed"


def test_a_failure_of_the_system_is_tried_again_as_often_as_asked(tmp_path):
    requests, verdict = _tries_until_given_up(_attempt(tmp_path), "system")
    assert len(requests) == 100
    assert "after 101 tries" in verdict


def test_a_lone_job_gets_all_cores_of_this_machine_and_many_get_what_they_ask(tmp_path):
    launcher = Launcher(ClusterConfig(kind="local"), tmp_path)
    launcher.cores = 8
    asked = Resources(memory_gb=1, hours=1, cpus=2)
    assert [launcher.share(asked, jobs).cpus for jobs in (1, 2, 3, 4, 100)] == [8, 4, 2, 2, 2]


def test_local_jobs_wait_for_a_free_gpu_and_get_one_of_their_own(tmp_path):
    launcher = Launcher(ClusterConfig(kind="local"), tmp_path)
    launcher.cores, launcher.gpus = 16, (3, 5)
    attempts = [Attempt(_stage(tmp_path), Resources(memory_gb=1, hours=1, cpus=1, gpus=1)) for _ in range(3)]
    running = []
    for attempt, expected in zip(attempts, (3, 5), strict=False):
        assert launcher.fits(attempt, running)
        attempt.gpus = (launcher._free_gpus(running)[0],)
        assert attempt.gpus == (expected,)
        running.append(attempt)
    assert not launcher.fits(attempts[2], running)
    running.pop(0)
    assert launcher.fits(attempts[2], running)
    assert launcher._free_gpus(running) == [3]
