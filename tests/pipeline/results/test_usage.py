"""What jobs used of what they asked for, from their notes and from SLURM's accounting."""

import os

import pytest

from pipeline.jobs.usage import Usage, ask_accounting, notes_of, of_stage, parse_max_rss, used
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.run import Run
from pipeline.report import page as report
from pipeline.results.history import stage_rows
from pipeline.results.status import status_of
from runtime.atomic import write_json
from runtime.config import to_dict


@pytest.fixture
def run(tmp_path):
    paths = {"results_path": tmp_path / "results", "logs_path": tmp_path / "logs"}
    run = Run.of(load_pipeline_config(None, {"paths": paths}))
    write_json(run.folder / "config.json", to_dict(run.config))
    return run


def _notes(run):
    return notes_of(run.jobs_folder, run.config.run_name, run.folder)


def _note(run, job, group, memory_gb, seconds, outcome="done"):
    values = {"memory_gb": memory_gb, "seconds": seconds, "outcome": outcome, "group": group}
    values |= {"stage": group, "host": "n1", "started": 1.0}
    path = run.paths.logs_path / "slurm" / job / f"note_{group}.json"
    write_json(path, {"run": run.config.run_name, **values})


def test_the_largest_and_the_longest_job_of_a_stage_are_told(run):
    _note(run, "11", "policy_i0", 1.5, 3600)
    _note(run, "12", "policy_i1", 0.5, 7200)
    _note(run, "13", "diffusion_i0", 9.0, 60)
    write_json(run.paths.logs_path / "slurm" / "14" / "note_x.json", {"run": "another", "group": "policy_i0"})
    most = used(of_stage(_notes(run), "policy"))
    assert (most.memory_gb, most.hours, most.accounted) == (1.5, 2.0, False)
    assert used(of_stage(_notes(run), "generation")) == Usage()
    rows = {row["stage"]: row for row in stage_rows(run)}
    policies = rows["train and test policies"]
    assert (policies["memory"], policies["peak"], policies["longest"]) == ("16 GB", "1.50 GB", "2h00m")
    page = report.page(run)
    assert "<td>1.50 GB</td>" in page
    assert "as the job measured it" in page


def test_the_accounting_stands_in_place_of_a_jobs_own_figure(run, tmp_path, monkeypatch):
    _note(run, "11_0", "policy_i0", 1.5, 3600)
    _note(run, "11_1", "policy_i0", 1.0, 3600)
    _note(run, "12", "policy_i0", 1.2, 60, outcome="running")
    # A program of the scheduler's name that answers as it does: steps of two ended jobs, none of the running one.
    sacct = tmp_path / "bin" / "sacct"
    sacct.parent.mkdir()
    sacct.write_text('#!/bin/sh\necho "$@" >> asked\nprintf "11_0|\\n11_0.batch|3145728K\\n11_0.extern|0\\n"\n')
    sacct.chmod(0o755)
    monkeypatch.setenv("PATH", str(sacct.parent), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    ask_accounting(run.jobs_folder, run.config.run_name, run.folder)
    most = used(_notes(run))
    assert (most.memory_gb, most.accounted) == (3.0, True)
    assert "scheduler&#39;s accounting" in report.page(run) or "scheduler's accounting" in report.page(run)
    assert status_of(run, {})["stages"] == []
    ask_accounting(run.jobs_folder, run.config.run_name, run.folder)
    first, second = (tmp_path / "asked").read_text().splitlines()[:2]
    assert first.endswith("-j 11_0,11_1")
    assert second.endswith("-j 11_1"), "what is known is not asked again"
    (run.folder / "usage.json").write_text("{")
    ask_accounting(run.jobs_folder, run.config.run_name, run.folder)
    assert used(_notes(run)).memory_gb == 3.0, "a damaged file is made anew"


def test_a_site_without_accounting_leaves_the_jobs_own_figures(run, monkeypatch, tmp_path):
    _note(run, "11", "policy_i0", 1.5, 3600)
    monkeypatch.setenv("PATH", str(tmp_path))
    ask_accounting(run.jobs_folder, run.config.run_name, run.folder)
    assert used(_notes(run)).memory_gb == 1.5
    assert not (run.folder / "usage.json").exists()


def test_sizes_of_the_accounting_are_read_with_their_units():
    text = "7|\n7.batch|1048576K\n7.0|2G\n8_3.batch|512M\n9.batch|\n9.extern|0\nnonsense\n5.batch|1073741824\n"
    assert parse_max_rss(text) == {"7": 2.0, "8_3": 0.5, "5": 1.0}
