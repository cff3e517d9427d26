"""Real jobs on this machine: what the loop says of one that fails."""

import logging

from diffusion.config import DenoiserConfig, TrainConfig
from offline_compositional_rl_datasets.hdf5 import task_file
from offline_compositional_rl_datasets.task import Task
from pipeline.config import ClusterConfig, Resources, RetryConfig
from pipeline.jobs import Launcher, run_jobs
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
