"""What is asked of sbatch, with what around it, and what follows where it takes no more jobs."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

from pipeline.jobs.attempts import Attempt, Group, Ledger
from pipeline.jobs.call import Note, note_file
from pipeline.jobs.failures import Cause, Failure, Tries, classify, decide
from pipeline.jobs.resources import ClusterConfig, Resources, RetryConfig
from pipeline.jobs.sbatch import asks_for_gpus
from pipeline.jobs.scheduler import queue
from pipeline.jobs.slurm import SlurmSite
from pipeline.jobs.submit_limits import Limit, limit_in
from runtime.atomic import write_json
from runtime.config import load_yaml, to_dict
from runtime.errors import ConfigError
from runtime.paths import machine_settings
from tests.pipeline.jobs.test_jobs import TellsItsGpus

POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
    "and/or time limits)"
)


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit {POLICY}", Limit.NUMBER),
        (f"sbatch: error: AssocMaxSubmitJobLimit {POLICY}", Limit.NUMBER),
        (f"sbatch: error: AssocGrpSubmitJobsLimit {POLICY}", Limit.NUMBER),
        (f"sbatch: error: QOSMaxJobsPerUserLimit {POLICY}", Limit.NUMBER),
        (f"sbatch: error: MaxSubmitJobsPerAccount {POLICY}", Limit.NUMBER),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", Limit.NUMBER),
        ("sbatch: error: Batch job submission failed: Resource temporarily unavailable", Limit.NUMBER),
        ("sbatch: error: Memory specification: limit exceeded", None),
        (POLICY, Limit.NUMBER_OR_SIZE),
        (f"sbatch: error: QOSMaxCpuPerUserLimit {POLICY}", Limit.NUMBER_OR_SIZE),
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit {POLICY}", None),
        (f"sbatch: error: QOSMinCpuNotSatisfied {POLICY}", None),
        (f"sbatch: error: AssocMaxGRESPerJob {POLICY}", None),
        ("sbatch: error: Batch job submission failed: Invalid job array specification", Limit.ARRAY),
        ("sbatch: error: invalid partition specified: gpuu", None),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination", None),
    ],
)
def test_a_limit_on_numbers_of_jobs_is_told_from_one_on_a_jobs_size(message, limit):
    assert limit_in(message) is limit


# A site of which each job is a file, `jobs/<id>`. It takes `limit` of them, and keeps what it was called with.
_SBATCH = """#!/bin/bash
cd {folder}
[ "$1" = --version ] && exit 0
count=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1"); count=$(( ${{count:-0}} + 1 ))
all=$(( $(ls jobs | wc -l) + count ))
if [ $all -gt $(cat limit) ] || [ $count -gt $(cat array) ]; then cat refusal >&2; exit 1; fi
id=$(( $(ls calls | wc -l) + 1 )); cp "$1" calls/$id; env > environment; echo "Submitted batch job $id"
if [ $count = 1 ]; then touch jobs/$id; else for i in $(seq 0 $((count - 1))); do touch jobs/${{id}}_$i; done; fi
"""
_SQUEUE = """#!/bin/bash
cd {folder}; for job in $(ls jobs); do echo "$job|RUNNING|None|n1|"; done
"""


@pytest.fixture
def site_folder(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    for part in ("jobs", "calls"):
        (folder / part).mkdir(parents=True)
    for name, text in (("sbatch", _SBATCH), ("squeue", _SQUEUE), ("srun", "#!/bin/sh\n"), ("sacct", "#!/bin/sh\n")):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    (folder / "refusal").write_text(f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}\n")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def _site(tmp_path, limit=100, array=100, **options):
    (tmp_path / "site" / "limit").write_text(str(limit))
    (tmp_path / "site" / "array").write_text(str(array))
    cluster = ClusterConfig(kind="slurm", poll_seconds=0.05, **options)
    return SlurmSite(cluster, tmp_path / "logs", Ledger(tmp_path / "jobs.json"), tmp_path / "code")


def _attempts(tmp_path, count):
    asked = Resources(memory_gb=2, hours=1, cpus=1, gpus=0)
    return [Attempt(TellsItsGpus(tmp_path / str(i), called=f"stage {i}"), asked) for i in range(count)]


def _group(tmp_path):
    return Group("run", "group", 0, lambda stage: tmp_path / "logs")


def _jobs(folder):
    return sorted(path.name for path in (folder / "jobs").iterdir())


def test_where_the_site_takes_few_jobs_arrays_are_smaller_and_the_others_wait_without_a_try(
    site_folder, tmp_path, caplog
):
    caplog.set_level("INFO")
    (site_folder / "jobs" / "other").touch()  # of the same user, not of this run
    site, ready = _site(tmp_path, limit=4), _attempts(tmp_path, 9)
    begun = site.submit(ready, [], _group(tmp_path))
    assert all(failure is None for _, failure in begun)
    assert len(begun) == 3
    assert len(_jobs(site_folder)) == 4
    left = [attempt for attempt in ready if attempt not in [attempt for attempt, _ in begun]]
    assert all(attempt.ticket == attempt.job_id == "" and attempt.tries.tries == 0 for attempt in left)
    assert site.submit(left, [attempt for attempt, _ in begun], _group(tmp_path)) == [], "it is not asked at each poll"
    assert caplog.text.count("the site takes no more jobs for now (QOSMaxSubmitJobPerUserLimit") == 1
    for job in _jobs(site_folder)[1:]:
        (site_folder / "jobs" / job).unlink()
    site.limits.jobs_ended()
    more = site.submit(left, [], _group(tmp_path))
    assert len(more) == 3
    assert not any(failure for _, failure in more)
    (site_folder / "limit").write_text("99")
    time.sleep(0.06)
    left = [attempt for attempt in left if attempt not in [attempt for attempt, _ in more]]
    assert len(site.submit(left, [], _group(tmp_path))) == 3
    assert "the site takes jobs again" in caplog.text


def test_a_limit_that_a_single_job_without_others_exceeds_is_a_refusal(site_folder, tmp_path):
    (site_folder / "refusal").write_text(POLICY + "\n")
    site = _site(tmp_path, limit=0)
    results = site.submit(_attempts(tmp_path, 3), [], _group(tmp_path))
    assert [failure.cause for _, failure in results] == 3 * [Cause.REFUSED]
    (site_folder / "jobs" / "other").touch()
    assert site.submit(_attempts(tmp_path, 3), [], _group(tmp_path)) == [], "others may be why"


def test_an_array_above_the_sites_size_is_cut_and_later_ones_are_not_larger(site_folder, tmp_path):
    (site_folder / "refusal").write_text(
        "sbatch: error: Batch job submission failed: Invalid job array specification\n"
    )
    site = _site(tmp_path, array=2)
    begun = site.submit(_attempts(tmp_path, 8), [], _group(tmp_path))
    assert [failure for _, failure in begun] == 8 * [None]
    assert len({attempt.ticket for attempt, _ in begun}) == 4
    assert site.limits.array_size == 2


def _script(site_folder, tmp_path, **options):
    ((_, failure),) = _site(tmp_path, **options).submit(_attempts(tmp_path, 1), [], _group(tmp_path))
    assert failure is None
    return max((site_folder / "calls").iterdir()).read_text()


def test_values_in_job_scripts_are_words_whatever_is_in_them(site_folder, tmp_path, monkeypatch):
    cache = f"{tmp_path}/my $(touch {tmp_path}/ran) `id` 'cache\""
    monkeypatch.setenv("ICDG_CACHE_PATH", cache)
    monkeypatch.setenv("PYTHONPATH", "lib:/else where")
    machine_settings.cache_clear()
    try:
        script = _script(site_folder, tmp_path)
    finally:
        machine_settings.cache_clear()
    setup = script[: script.index("# command")] + 'printf "%s\\n" "$ICDG_CACHE_PATH" "$PYTHONPATH"\n'
    kept = dict(line.split("=", 1) for line in (site_folder / "environment").read_text().splitlines() if "=" in line)
    told = subprocess.run(
        ["bash", "-c", setup], capture_output=True, text=True, check=True, env={**os.environ, **kept}
    ).stdout.splitlines()
    assert told[0] == cache
    program, *others = told[1].split(":")
    assert program.startswith(str(tmp_path / "code"))
    assert others == [str(Path.cwd() / "lib"), "/else where"]
    assert not (tmp_path / "ran").exists()


def test_null_takes_an_option_out_and_no_key_is_named_that_nobody_asked_for(site_folder, tmp_path):
    (tmp_path / "c.yaml").write_text("{kind: slurm, sbatch: {mem-per-cpu: 2G, mem: null, requeue: false, nice: 5}}")
    options = load_yaml(ClusterConfig, tmp_path / "c.yaml").sbatch
    lines = _script(site_folder, tmp_path, sbatch=options).splitlines()
    assert "#SBATCH --mem-per-cpu=2G" in lines
    assert "#SBATCH --nice=5" in lines
    taken_out = ("--mem=", "--requeue", "--wckey")
    assert not [line for line in lines if line.startswith(tuple(f"#SBATCH {option}" for option in taken_out))]
    alone = _script(site_folder, tmp_path, sbatch={"mem_per_gpu": "8G"})
    assert "--mem=" not in alone, "sbatch takes one of them"
    assert "#SBATCH --cpus-per-task=3\n" in _script(site_folder, tmp_path, sbatch={"cpus-per-task": 3})


@pytest.mark.parametrize(
    ("sbatch", "first", "grown"),
    [
        ({}, "--mem=2GB", "--mem=3GB"),
        ({"mem-per-cpu": "2G", "mem": None}, "--mem-per-cpu=2G", "--mem-per-cpu=3072M"),
        ({"mem_per_cpu": 2048, "cpus-per-task": 3}, "--mem-per-cpu=2048", "--mem-per-cpu=3072M"),
        ({"mem_per_gpu": "8G", "gpus": "a100:2"}, "--mem-per-gpu=8G", "--mem-per-gpu=12288M"),
        ({"mem": "8G"}, "--mem=8G", "--mem=12288M"),
    ],
)
def test_the_option_of_memory_that_a_site_has_is_the_one_that_grows(site_folder, tmp_path, sbatch, first, grown):
    site = _site(tmp_path, sbatch=sbatch)
    (attempt,) = _attempts(tmp_path, 1)
    attempt.resources = site.share(attempt.resources, 1)
    scripts = []
    for _ in range(2):
        site.submit([attempt], [], _group(tmp_path))
        scripts.append(max((site_folder / "calls").iterdir()).read_text().splitlines())
        failure, had = Failure(Cause.MEMORY, "out of memory"), attempt.resources.memory_gb
        fixed = site.fixed_memory(attempt.resources)
        decision = decide(failure, attempt.resources, Tries(1), RetryConfig(), fixed)
        attempt.resources = decision.resources
        assert f"with {attempt.resources.memory_gb} GB instead of {had}" in decision.line
    for lines, option in zip(scripts, (first, grown), strict=True):
        assert [line for line in lines if line.startswith("#SBATCH --mem")] == [f"#SBATCH {option}"]


@pytest.mark.parametrize("sbatch", [{"mem": None}, {"mem": 0}, {"mem_per_gpu": "8G"}])
def test_memory_that_cannot_be_made_larger_is_said_and_not_tried_again(site_folder, tmp_path, sbatch):
    site = _site(tmp_path, sbatch=sbatch)
    (attempt,) = _attempts(tmp_path, 1)
    fixed = site.fixed_memory(attempt.resources)
    decision = decide(Failure(Cause.MEMORY, "out of memory"), attempt.resources, Tries(1), RetryConfig(), fixed)
    assert decision.give_up.startswith("out of memory; cluster.sbatch has mem")
    assert decision.resources == site.share(attempt.resources, 1) == attempt.resources


@pytest.mark.parametrize("sbatch", [{"comment": "x"}, {"open_mode": "w"}, {"p": "gpu"}, {"-p": "gpu"}, {"qos": "a\nb"}])
def test_options_that_would_lose_jobs_are_refused(sbatch):
    with pytest.raises(ConfigError, match=r"cluster\.sbatch: .*expected"):
        ClusterConfig(sbatch=sbatch)
    with pytest.raises(ConfigError, match=r"cluster\.gres: 'gpu\\n#SBATCH': expected a single line"):
        ClusterConfig(gres="gpu\n#SBATCH")


def test_a_path_that_slurm_reads_as_a_pattern_is_refused(site_folder, tmp_path):
    with pytest.raises(ConfigError, match=r"logs_path .*100%.*expected none"):
        SlurmSite(ClusterConfig(kind="slurm"), tmp_path / "100%", Ledger(tmp_path / "jobs.json"), tmp_path / "code")


_AROUND = {
    "SLURM_JOB_ID": "7",
    "SLURM_MEM_PER_NODE": "4000",
    "SLURM_EXPORT_ENV": "NONE",
    "SBATCH_PARTITION": "mine",
    "SQUEUE_PARTITION": "mine",
    "PMI_RANK": "1",
    "PMIX_RANK": "1",
    "RANK": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "n1",
}


def test_what_an_allocation_says_of_itself_does_not_reach_sbatch(site_folder, tmp_path, monkeypatch):
    for name, value in {**_AROUND, "SLURM_CONF": "/etc/slurm/slurm.conf", "SLURM_CLUSTERS": "big"}.items():
        monkeypatch.setenv(name, value)
    _script(site_folder, tmp_path)
    names = {line.partition("=")[0] for line in (site_folder / "environment").read_text().splitlines()}
    assert not names & _AROUND.keys()
    assert {"SLURM_CONF", "SLURM_CLUSTERS", "PATH", "HOME"} <= names
    assert os.environ["SLURM_JOB_ID"] == "7", "the loop's own are as they were"
    assert set(queue()) == {"1"}


def test_a_node_whose_gpu_failed_is_known_by_the_jobs_note_where_the_scheduler_has_forgotten_the_job(
    site_folder, tmp_path
):
    site = _site(tmp_path)
    ((attempt, _),) = site.submit(_attempts(tmp_path, 1), [], _group(tmp_path))
    (site_folder / "jobs" / "1").unlink()
    note = Note(attempt.stage.name, "error", "n7", 0.0, 1.0, 0.5, device=True, message="no CUDA")
    write_json(note_file(tmp_path / "logs" / "1", attempt.stage.name), to_dict(note))
    ((_, evidence),) = site.over([attempt])
    assert classify(evidence) == Failure(Cause.DEVICE, "no CUDA", "n7")


def test_a_job_whose_loop_was_killed_twice_while_it_wrote_what_the_job_runs_gets_it(site_folder, tmp_path):
    site = _site(tmp_path)
    ((attempt, _),) = site.submit(_attempts(tmp_path, 1), [], _group(tmp_path))
    pickle = tmp_path / "logs" / "1" / "1_submitted.pkl"
    pickle.rename(pickle.with_name(pickle.name + ".save_tmp"))
    assert site.adopt([attempt], _group(tmp_path)) == [attempt]
    assert DelayedSubmission.load(pickle).function.stages == [attempt.stage]


@pytest.mark.parametrize(
    ("options", "asks"),
    [({}, True), ({"gpus-per-node": None}, False), ({"gpus-per-node": None, "gpus": 1}, True)],
)
def test_a_gpu_is_missed_only_where_it_was_asked_for(options, asks):
    assert asks_for_gpus(ClusterConfig(sbatch=options)) is asks
    assert asks_for_gpus(ClusterConfig(sbatch=options, gres="gpu:a100:1"))
