"""Real jobs on this machine: what the loop says of one that fails. And what sites do with several."""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion.config import TrainConfig
from diffusion.denoisers import DenoiserConfig
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import Episode, task_file, write_expert
from pipeline.jobs.arrays import batches, room
from pipeline.jobs.attempts import Attempt, Group, Ledger, Record
from pipeline.jobs.failures import Cause, Tries, classify
from pipeline.jobs.local import LocalSite
from pipeline.jobs.queue import make_site, resolve_cluster, run_jobs
from pipeline.jobs.resources import ClusterConfig, Resources, RetryConfig
from pipeline.jobs.sbatch import refusal
from pipeline.jobs.scheduler import JobInfo, cancelled_by_user, parse_queue
from pipeline.jobs.stage import Stage, StageProgress
from pipeline.results.status import count, eta_seconds, under_way
from pipeline.stages.generator import TrainGenerator
from runtime.atomic import artifact_info, commit_artifact
from runtime.device import DeviceError, expect_gpus, pick_device
from runtime.errors import ConfigError, JobError
from runtime.metrics import MetricsWriter
from runtime.provenance import provenance

TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")


def _run(stage, tmp_path, **retry):
    ledger = Ledger(tmp_path / "jobs.json")
    site = make_site(ClusterConfig(kind="local"), tmp_path / "slurm", ledger, tmp_path / "code")
    resources = Resources(memory_gb=1, hours=1, cpus=1, gpus=0)
    group = Group("run", "diffusion", 0, lambda stage: tmp_path / "logs")
    retry = RetryConfig(retry_delay=0.1, **retry)
    return run_jobs([stage], resources, site, ledger, group, retry, lambda stage: "done")


def _stage(tmp_path, steps=1):
    return TrainGenerator(
        data_path=tmp_path,
        dataset_type="expert",
        expert_tasks=(TASK,),
        sources=(),
        network=DenoiserConfig(hidden=8, depth=1, heads=1),
        training=TrainConfig(steps=steps, small_batch_size=8, log_freq=1),
        seed=0,
        checkpoint=tmp_path / "model" / "model-1.pt",
    )


def _episode():
    random = np.random.default_rng(0)
    states = random.normal(size=(20, COMPOSUITE.state_dim)).astype(np.float32)
    actions = random.uniform(-1, 1, (20, COMPOSUITE.action_dim)).astype(np.float32)
    return Episode(states, actions, np.zeros(20, np.float32), np.zeros(20, np.float32), terminated=False)


def _data(tmp_path, content):
    data = task_file(tmp_path, "expert", TASK)
    data.parent.mkdir(parents=True)
    data.write_bytes(content)
    return data


def test_a_job_that_meets_damaged_data_is_not_tried_again_and_its_reason_is_told(tmp_path, caplog):
    data = _data(tmp_path, b"\x89HDF\r\n\x1a\n and no more")
    with caplog.at_level(logging.WARNING):
        failed = _run(_stage(tmp_path), tmp_path)
    (reason,) = failed.values()
    assert reason.startswith(f"{data}: ")
    assert "trying again" not in caplog.text


def test_a_job_that_fails_by_a_fault_of_the_program_is_tried_once_more_and_its_traceback_told(tmp_path, caplog):
    _data(tmp_path, b"")
    stage = _stage(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".lock").mkdir()  # no file can be locked here
    with caplog.at_level(logging.WARNING):
        failed = _run(stage, tmp_path)
    assert caplog.text.count("trying again") == 1
    (reason,) = failed.values()
    assert ".lock" in reason
    assert "log.out" not in reason
    assert "filelock" in caplog.text, "the traceback's last lines are in the loop's log"
    assert any(link.is_symlink() and link.exists() for link in (tmp_path / "logs").iterdir())


def test_ctrl_c_in_a_terminal_stops_the_jobs_after_they_have_saved_and_prints_no_traceback(tmp_path):
    write_expert(task_file(tmp_path, "expert", TASK), [_episode()], TASK)
    loop = (
        "import pathlib, signal, sys; from runtime.main import run_main\n"
        "from tests.pipeline.jobs import test_jobs as t\n"
        # As in a terminal; where the tests run in a shell's background, SIGINT is ignored from birth.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "folder = pathlib.Path(sys.argv[1]); run_main(lambda: t._run(t._stage(folder, 1_000_000), folder) and 0)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", loop, str(tmp_path)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "model" / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline, "the job did not begin"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert told.endswith("interrupted: the same command continues where this stopped\n")
    assert "Traceback" not in told
    assert (tmp_path / "model" / "resume.pt").exists()


def test_a_lone_job_gets_all_cores_of_this_machine_and_many_get_what_they_ask(tmp_path):
    site = LocalSite(tmp_path)
    site.cores = 8
    asked = Resources(memory_gb=1, hours=1, cpus=2)
    assert [site.share(asked, jobs).cpus for jobs in (1, 2, 3, 4, 100)] == [8, 4, 2, 2, 2]


@dataclasses.dataclass(frozen=True)
class TellsItsGpus(Stage):
    """A stage that writes down which GPUs it is shown."""

    path: Path
    called: str = "gpus"

    @property
    def name(self):
        return self.called

    @property
    def output(self):
        return self.path

    def key(self):
        return "gpus"

    def progress(self):
        return StageProgress("writing")

    def work(self, key):
        self.output.write_text(os.environ["CUDA_VISIBLE_DEVICES"])


@pytest.mark.parametrize("own", [(), ("1",), ("GPU-8932f937", "MIG-e2a3")], ids=["none", "a number", "names"])
def test_a_local_job_sees_its_own_gpus_and_no_others(own, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(own))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(own))
    site = LocalSite(tmp_path)
    assert site.gpus == own
    asked = Resources(memory_gb=1, hours=1, cpus=1, gpus=len(own))
    attempt = Attempt(TellsItsGpus(tmp_path / "gpus.txt"), asked)
    ((begun, failure),) = site.submit([attempt], [], Group("run", "group", 0, lambda stage: tmp_path / "logs"))
    assert failure is None
    begun.job.result()
    assert (tmp_path / "gpus.txt").read_text() == ",".join(own)


def test_local_jobs_wait_for_a_free_gpu_and_get_one_of_their_own(tmp_path):
    site = LocalSite(tmp_path)
    site.cores, site.gpus = 16, ("3", "5")
    attempts = [Attempt(_stage(tmp_path), Resources(memory_gb=1, hours=1, cpus=1, gpus=1)) for _ in range(3)]
    running = []
    for attempt, expected in zip(attempts, ("3", "5"), strict=False):
        assert site.fits(attempt, running)
        attempt.gpus = (site.free_gpus(running)[0],)
        assert attempt.gpus == (expected,)
        running.append(attempt)
    assert not site.fits(attempts[2], running)
    running.pop(0)
    assert site.fits(attempts[2], running)
    assert site.free_gpus(running) == ["3"]


def _attempts(tmp_path, count, **resources):
    asked = Resources(**{"memory_gb": 1, "hours": 1, "cpus": 1, **resources})
    return [Attempt(_stage(tmp_path), asked) for _ in range(count)]


@given(count=st.integers(0, 40), per_job=st.integers(1, 7), limit=st.integers(1, 9))
def test_every_task_is_in_one_job_of_one_array_within_the_limits(tmp_path_factory, count, per_job, limit):
    folder = tmp_path_factory.getbasetemp()
    ready = _attempts(folder, count) + _attempts(folder, count // 2, memory_gb=9)
    arrays = batches(ready, per_job, limit)
    placed = [attempt for array in arrays for job in array for attempt in job]
    assert {id(attempt) for attempt in placed} == {id(attempt) for attempt in ready}
    assert len(placed) == len(ready)
    for array in arrays:
        assert 1 <= len(array) <= limit
        assert all(1 <= len(job) <= per_job for job in array)
        assert len({attempt.resources for job in array for attempt in job}) == 1


def test_an_array_takes_no_more_room_than_it_may_run_at_once(tmp_path):
    running = _attempts(tmp_path, 7)
    for i, attempt in enumerate(running):
        attempt.ticket, attempt.job_id = ("a", f"1_{i}") if i < 5 else ("b", "2")
    assert room([], 3) == 3
    assert room(running[:5], 3) == 0
    assert room(running[3:], 4) == 1, "two tasks of one job take one place"


def test_lines_of_the_queue_are_read_with_whatever_a_comment_holds():
    jobs = parse_queue("12_3|RUNNING|None|n[1-2]|icdg:abc\n13|PENDING|Resources||a|b\nslurm_load_jobs error\n")
    assert jobs["12_3"].node == "n[1-2]"
    assert jobs["13"].comment == "a|b"
    assert len(jobs) == 2


def test_who_cancelled_a_job_is_known_where_the_accounting_names_somebody():
    assert cancelled_by_user("CANCELLED by 1000", 1000) is True
    assert cancelled_by_user("CANCELLED by 0", 1000) is False
    assert cancelled_by_user("CANCELLED", 1000) is None


def test_a_controller_that_is_away_is_no_refusal():
    away = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
    assert refusal(away).cause is Cause.SYSTEM
    assert refusal("sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host").cause is Cause.SYSTEM
    assert refusal("sbatch: error: invalid partition specified: gpuu").cause is Cause.REFUSED


@pytest.mark.parametrize("kind", ["auto", "slurm"])
def test_slurm_without_a_configuration_ends_with_a_line_before_anything_is_submitted(tmp_path, monkeypatch, kind):
    complaint = "sbatch: fatal: Could not establish a configuration source"
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(JobError, match=f"{complaint}.*use --cluster local"):
        resolve_cluster(kind)
    (tmp_path / "sbatch").write_text("#!/bin/sh\nexit 0\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="srun, squeue are not on the PATH"):
        resolve_cluster(kind)
    for command in ("srun", "squeue"):
        (tmp_path / command).write_text("")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert resolve_cluster(kind) == "slurm"
    (tmp_path / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="sbatch is not on the PATH"):
        resolve_cluster("slurm")


def test_status_counts_by_artifact_ledger_and_scheduler(tmp_path):
    stages = [dataclasses.replace(_stage(tmp_path), checkpoint=tmp_path / str(i) / "model-1.pt") for i in range(5)]
    commit_artifact(stages[0].output, lambda path: path.write_text("x"), {})
    asked = Resources(memory_gb=1, hours=1, cpus=1)
    records = {s.name: Record("key", f"7_{i}", "", 0, 0.0, asked, Tries()) for i, s in enumerate(stages[:4])}
    jobs = {"7_1": JobInfo("RUNNING"), "7_2": JobInfo("PENDING")}
    known = {"done": 1, "running": 1, "queued": 1, "submitted": 0, "waiting": 2}
    assert count(stages, records, jobs) == known
    assert count(stages, records, None) == {"done": 1, "running": 0, "queued": 0, "submitted": 3, "waiting": 1}
    assert eta_seconds(known, [10.0, 20.0]) == 4 * 15.0
    assert eta_seconds(known, []) is None
    assert eta_seconds(known, [], [(0.25, 10.0)]) == (4 - 0.25) * 40.0


def test_a_running_stage_is_known_by_its_note_and_how_far_it_is_by_its_metrics(tmp_path):
    stage = dataclasses.replace(_stage(tmp_path), training=TrainConfig(steps=10))
    MetricsWriter(stage.checkpoint.parent).log(step=5, loss=1.0)
    note = {"stage": stage.name, "outcome": "running", "started": 100.0}
    assert under_way([stage], [note], now=130.0) == [(0.5, 30.0)]
    assert under_way([stage], [{**note, "outcome": "error"}], now=130.0) == []


def test_a_ledger_gives_an_attempt_its_job_and_what_failures_made_of_its_request(tmp_path):
    _data(tmp_path, b"x")
    ledger = Ledger(tmp_path / "jobs.json")
    (attempt,) = _attempts(tmp_path, 1, memory_gb=24, hours=9)
    attempt.job_id, attempt.ticket, attempt.place = "17_2", "icdg:1", 2
    attempt.tries = attempt.tries.another()
    attempt.tries.failures["memory"] = 1
    ledger.write([attempt])
    (again,) = _attempts(tmp_path, 1, memory_gb=16, hours=4)
    Ledger(tmp_path / "jobs.json").restore(again)
    assert (again.job_id, again.ticket, again.place, again.tries.tries) == ("17_2", "icdg:1", 2, 1)
    assert again.resources == Resources(memory_gb=24, hours=4, cpus=1), "hours are those asked now"


def test_a_damaged_ledger_is_told_and_not_fatal(tmp_path, caplog):
    (tmp_path / "jobs.json").write_text('{"half')
    assert Ledger(tmp_path / "jobs.json").records == {}
    assert "jobs are submitted anew" in caplog.text


@dataclasses.dataclass(frozen=True)
class TellsItsEnvironment(TellsItsGpus):
    """A stage that writes down the names of the variables around it."""

    def work(self, key):
        self.output.write_text("\n".join(os.environ))


def _begin(site, attempt, tmp_path):
    ((begun, failure),) = site.submit([attempt], [], Group("run", "group", 0, lambda stage: tmp_path / "logs"))
    assert failure is None
    return begun


def test_a_local_job_within_an_allocation_is_no_part_of_it_and_has_a_folder_of_its_own(tmp_path, monkeypatch):
    around = ("SLURM_JOB_ID", "SLURM_PROCID", "PMI_RANK", "WORLD_SIZE", "RANK")
    for name in around:
        monkeypatch.setenv(name, "7")
    asked = Resources(memory_gb=1, hours=1, cpus=1, gpus=0)
    stage = TellsItsEnvironment(tmp_path / "names.txt")
    _begin(LocalSite(tmp_path / "slurm"), Attempt(stage, asked), tmp_path).job.result()
    assert not set(around) & set(stage.output.read_text().split())
    (folder,) = (path for path in (tmp_path / "slurm").iterdir() if path.is_dir())
    assert folder.name.startswith("local_")
    assert {path.name for path in folder.iterdir()} >= {"note_gpus.json"}


@dataclasses.dataclass(frozen=True)
class PicksItsDevice(TellsItsGpus):
    device: str = "auto"

    def work(self, key):
        pick_device(self.device)
        commit_artifact(self.output, lambda path: path.write_text("x"), provenance())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_job_that_was_given_a_gpu_and_finds_no_cuda_has_a_device_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # of the loop's process, not of the jobs'
    site = LocalSite(tmp_path / "slurm")
    site.cores = 2
    asked = Resources(memory_gb=1, hours=1, cpus=1, gpus=1)
    attempts = [Attempt(PicksItsDevice(tmp_path / device, device=device), asked) for device in ("auto", "cpu")]
    assert len(site.submit(attempts, [], Group("run", "group", 0, lambda stage: tmp_path / "logs"))) == 2
    ended = {}
    while len(ended) < 2:
        time.sleep(0.05)
        ended |= {attempt.stage.device: evidence for attempt, evidence in site.over(attempts)}
    failure = classify(ended["auto"])
    assert (failure.cause, failure.reason) == (Cause.DEVICE, "the job was given 1 GPU and CUDA finds none")
    assert not attempts[0].stage.output.exists()
    assert artifact_info(attempts[1].stage.output)["device"] == "cpu"
    assert "computing on cpu" in attempts[1].job.stdout()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_gpus_that_were_given_have_to_be_there_unless_the_cpu_was_asked_for(device):
    expect_gpus(2)
    try:
        with pytest.raises(DeviceError, match="the job was given 2 GPUs and CUDA finds none"):
            pick_device(device)
        assert pick_device("cpu").type == "cpu"
    finally:
        expect_gpus(0)
    if device == "auto":
        assert pick_device(device).type == "cpu"
    else:
        with pytest.raises(ConfigError, match="this machine has 0 CUDA devices"):
            pick_device(device)
