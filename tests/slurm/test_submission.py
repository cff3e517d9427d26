"""Jobs on a real SLURM whose site has limits and options of its own, from a place that is full of surprises."""

import json
import logging

import pytest

from pipeline.jobs.attempts import Group, Ledger
from pipeline.jobs.queue import make_site, run_jobs
from pipeline.jobs.resources import ClusterConfig, Resources, RetryConfig
from runtime.paths import machine_settings
from tests.slurm.runs import ROOT
from tests.slurm.stages import KeepsItsEnvironment


@pytest.fixture
def around(cluster, tmp_path, monkeypatch):
    """Variables of an allocation, and folders whose names a shell would take apart."""
    values = {
        "SLURM_CONF": str(cluster.conf),
        "PATH": cluster.environment["PATH"],
        "PYTHONPATH": str(ROOT),
        "ICDG_CACHE_PATH": f"{tmp_path}/a $(touch {tmp_path}/ran) 'cache\"",
        "SLURM_JOB_ID": "7",
        "SLURM_MEM_PER_NODE": "999999",
        "SLURM_EXPORT_ENV": "NONE",
        "SBATCH_PARTITION": "none",
        "WORLD_SIZE": "4",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    machine_settings.cache_clear()
    yield values
    machine_settings.cache_clear()


def test_jobs_wait_within_the_limit_of_a_site_and_are_what_they_were_asked_to_be(cluster, around, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "it's a $(folder)"
    stages = [KeepsItsEnvironment(folder / f"{i}.json") for i in range(3)]
    options = {"mem": None, "mem-per-cpu": "500M", "export": "NONE"}
    site = ClusterConfig(kind="slurm", poll_seconds=0.5, sbatch=options)
    ledger = Ledger(tmp_path / "jobs.json")
    cluster.limit_submitted_jobs(2)
    try:
        failed = run_jobs(
            stages,
            Resources(memory_gb=100, hours=0.1, cpus=2, gpus=0),
            make_site(site, folder / "logs", ledger, folder / "code"),
            ledger,
            Group("run", "keep", 0, lambda stage: folder / "named"),
            RetryConfig(retry_delay=0.5),
            lambda stage: "kept",
        )
    finally:
        cluster.limit_submitted_jobs(-1)
    assert failed == {}
    assert "the site takes no more jobs for now (AssocMaxSubmitJobLimit" in caplog.text
    assert "trying again" not in caplog.text
    for stage in stages:
        kept = json.loads(stage.output.read_text())
        assert kept["ICDG_CACHE_PATH"] == around["ICDG_CACHE_PATH"]
        assert kept["SLURM_MEM_PER_CPU"] == "500"
        assert kept["SLURM_JOB_ID"] != "7"
        assert kept["ICDG_CPUS"] == kept["SLURM_CPUS_PER_TASK"] == kept["SLURM_CPUS_ON_NODE"] == "2"
        assert "SLURM_MEM_PER_NODE" not in kept
        assert "WORLD_SIZE" not in kept
    assert not (tmp_path / "ran").exists()
    assert len(list((folder / "named").iterdir())) == 3
