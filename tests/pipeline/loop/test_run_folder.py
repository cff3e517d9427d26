"""A run's folder as users and machines leave it: damaged, moved, reached another way, or asked for less."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys

import pytest

from diffusion.quality import Quality
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from pipeline.jobs.attempts import Ledger
from pipeline.jobs.call import note_file, read_note
from pipeline.jobs.local import LocalSite
from pipeline.loop.algorithm import iterate
from pipeline.loop.plan import generation_stages, policies, rejected
from pipeline.loop.run import Run, open_run
from pipeline.loop.runner import _announce, open_folder
from pipeline.loop.selection import Score
from pipeline.loop.steps import Steps
from pipeline.report import page as report
from pipeline.results import tables
from pipeline.results.generated_sets import generated_sets
from pipeline.results.physics_summary import LEVELS, UNITS, PhysicsSummary
from pipeline.results.status import render, status_of
from pipeline.results.training_curves import loss_curves
from pipeline.stages.paths import PHYSICS_FILE, marginals_file
from runtime.atomic import read_json, write_json
from runtime.config import to_dict
from runtime.errors import StateError
from runtime.metrics import MetricsWriter
from tests import written_runs as runs
from tests.conftest import ROOT

QUALITY = Quality(100, 0.25, "s_object", 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.03, 0.0)


@pytest.fixture
def run(tmp_path):
    """Two iterations and a third under way, of which nothing is there but the state."""
    return runs.begun(runs.two_iterations(runs.new_run(tmp_path, quality={"skip": True})))


def _quantiles():
    return {name: [1.0] * len(LEVELS) for name in UNITS}


def _optional_files(run):
    """One of each kind of file that a run can do without, with what belongs in it."""
    it = run.state.iterations[0]
    generated, policy = generation_stages(run, it)[0], policies(run, it)[0]
    physics = PhysicsSummary(generated.task.name, 1, 0.0, list(LEVELS), UNITS, _quantiles(), _quantiles(), {})
    note = {"stage": "s", "outcome": "done", "host": "h", "started": 1.0, "seconds": 2.0, "memory_gb": 0.5}
    note |= {"run": run.config.run_name, "group": "policy_i2"}
    write_json(generated.quality_file, to_dict(QUALITY))
    write_json(generated.output.with_name(PHYSICS_FILE), to_dict(physics))
    write_json(note_file(run.paths.logs_path / "slurm" / "7", "s"), note)
    MetricsWriter(generated.checkpoint.parent).log(step=1, loss=1.0)
    MetricsWriter(policy.folder).log(step=1, success_rate=0.5, mean_return=1.0)
    write_json(run.folder / "usage.json", {"7": 1.5})
    return [
        generated.quality_file,
        generated.output.with_name(PHYSICS_FILE),
        note_file(run.paths.logs_path / "slurm" / "7", "s"),
        generated.checkpoint.parent / "metrics.jsonl",
        policy.folder / "metrics.jsonl",
        run.folder / "usage.json",
    ]


def _all_that_is_told(run):
    """What a run does with such files while it runs: decide on hopeless sets, write tables, page and status."""
    tables.write_iteration_tables(run)
    rejected(run, run.state.iterations[0])
    (stage,) = (s for s in status_of(run, {})["stages"] if s["stage"] == "policy")
    return len(generated_sets(run)), len(list(loss_curves(run))), stage["memory_gb"]["used"]


def test_information_that_a_run_can_do_without_is_told_where_it_is_whole(run):
    _optional_files(run)
    assert _all_that_is_told(run) == (1, 1, 1.5)
    assert "Quality of 1 sets" in report.page(run)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"\xff\xfe" + content,
        lambda content: b"[]\n",
        lambda content: b"null\n",
        lambda content: b'{"step": "one", "rows": NaN, "outcome": 5}\n',
        lambda content: content.replace(b"1.0", b'"1.0"').replace(b"0.25", b'"far"').replace(b'"stage"', b'"stages"'),
        lambda content: b"[" * 100_000,
    ],
    ids=["empty", "cut", "no text", "a list", "null", "other keys", "other types", "a deep nest"],
)
def test_information_that_a_run_can_do_without_never_stops_it(run, damage):
    for path in _optional_files(run):
        path.write_bytes(damage(path.read_bytes()))
    assert _all_that_is_told(run) == (0, 0, None)
    assert "<h1>" in report.page(run)


def test_a_folder_in_the_place_of_optional_information_never_stops_a_run(run):
    for path in _optional_files(run):
        path.unlink()
        path.mkdir()
    assert _all_that_is_told(run) == (0, 0, None)


def test_a_generator_whose_marginals_are_damaged_generates_all_the_same(tmp_path, caplog):
    from pipeline.stages.generator import known_marginals

    path = marginals_file(tmp_path / "model.pt")
    for content in (b"", b"PK\x03\x04", b"\x93NUMPY"):
        path.write_bytes(content)
        assert known_marginals(tmp_path / "model.pt", COMPOSUITE) is None
        assert f"{path}: " in caplog.text
        assert "quality is judged without it" in caplog.text


def test_a_note_keeps_what_a_newer_program_adds_out(tmp_path):
    note = {"stage": "s", "outcome": "error", "host": "h", "started": 1, "seconds": 2, "memory_gb": 0}
    write_json(note_file(tmp_path, "s"), note | {"message": "no disk", "user": True, "of_the_future": [1]})
    assert {"message": "no disk", "user": True, "trace": (), "outcome": "error"}.items() <= read_note(
        tmp_path, "s"
    ).items()
    write_json(note_file(tmp_path, "s"), note | {"seconds": "long"})
    assert read_note(tmp_path, "s") is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1, "iterations": 7}', "[" * 100_000])
def test_a_damaged_state_is_set_aside_once_and_the_run_goes_on(tmp_path, content, caplog):
    first = runs.two_iterations(runs.new_run(tmp_path))
    first.state_file.write_text(content)
    for _ in range(2):
        assert open_folder(Run.of(first.config)).state.iterations == ()
    assert caplog.text.count("found out again from the finished files") == 1
    assert (first.folder / "state.json.damaged").read_text() == content


def test_a_state_of_another_version_is_left_as_it_is(tmp_path):
    first = runs.two_iterations(runs.new_run(tmp_path))
    first.state_file.write_text('{"version": 2}')
    with pytest.raises(StateError, match=r"state\.json: state of version 2, expected 1"):
        open_folder(Run.of(first.config))
    assert first.state_file.read_text() == '{"version": 2}'


def test_the_tables_of_a_run_are_its_own_however_its_folders_are_reached(tmp_path):
    real, link = tmp_path / "deep" / "er" / "real", tmp_path / "link"
    first = runs.new_run(real)
    link.symlink_to(real)
    tables.claim(first)
    paths = {"results_path": link / "results", "logs_path": real / "logs"}
    tables.claim(runs.new_run(link))
    tables.claim(runs.new_run(tmp_path / "x", paths=paths))
    written = first.tables_folder / "run.txt"
    written.write_bytes(b"\xff\xfe")
    tables.claim(first)
    assert first.config.run_name in written.read_text(), "a damaged claim is no one's"
    with pytest.raises(StateError, match="holds the tables of another run"):
        tables.claim(runs.new_run(tmp_path / "y", paths={**paths, "results_path": tmp_path / "elsewhere"}))


def _iterated(run):
    """The run after its last iteration, of which nothing is left to do, with its final tables."""
    ledger = Ledger(run.folder / "jobs.json")
    steps = Steps(run, LocalSite(run.jobs_folder), ledger)
    iterate(steps)
    tables.Tables().ended(steps.run)
    return steps.run


def test_a_run_asked_for_fewer_iterations_than_it_has_says_what_it_has(tmp_path, caplog):
    run = runs.two_iterations(runs.new_run(tmp_path, max_iterations=1))
    with caplog.at_level("INFO"):
        _announce(run, "local")
        run = _iterated(run)
    assert "asked for 1 iterations: 2 are done and kept, nothing is begun" in caplog.text
    assert run.state.outcome == "2 iterations done"
    assert tables.final_table_file(run).name == "final_test_task_table_iter1.csv"
    assert tables.final_table_file(run).exists()
    assert "2 done, 1 asked for" in render(status_of(run, {}))


def test_an_iteration_beyond_those_asked_for_is_left_as_it_is(tmp_path):
    run = runs.begun(runs.two_iterations(runs.new_run(tmp_path, max_iterations=2)))
    task = run.state.current.targets[0]
    run = runs.saved(run, run.state.update(scores={task: {0: Score(10, 10)}}))
    run = _iterated(run)
    assert run.state.outcome == "2 iterations done; 2 was begun, --max_iterations 3 goes on with it"
    table = tables.final_table_file(run)
    assert table.name == "final_test_task_table_iter1.csv"
    assert "iter_2" not in table.read_text()
    assert run.state.current.scores[task] == {0: Score(10, 10)}, "what was found is kept"


def test_the_status_of_a_moved_run_says_which_folders_are_gone(tmp_path):
    run = runs.two_iterations(runs.new_run(tmp_path, paths={
        "results_path": tmp_path / "results", "logs_path": tmp_path / "logs", "data_path": tmp_path / "data",
    }))  # fmt: skip
    open_folder(run, [tables.Tables()])
    runs.saved(run, dataclasses.replace(run.state, expert_data={run.tasks.train[0].name: "k"}))
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "results", moved)
    folder = moved / "loops" / run.config.run_name
    told = render(status_of(open_run(folder), {}))
    assert f"gone: data_path {tmp_path / 'data'}" in told
    assert "logs_path" not in told
    told = render(status_of(open_run(folder, logs_path=tmp_path / "none", data_path=tmp_path), {}))
    assert f"gone: logs_path {tmp_path / 'none'}" in told
    assert "data_path" not in told


def test_the_status_of_other_runs_is_told_beside_a_damaged_one(tmp_path):
    good = runs.two_iterations(runs.new_run(tmp_path))
    bad = runs.two_iterations(runs.new_run(tmp_path, diffusion_seed=7))
    bad.state_file.write_text("{")
    command = [sys.executable, "-m", "scripts.status", "--results_path", tmp_path / "results", "--json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert [each["run"] for each in json.loads(result.stdout)] == [good.config.run_name]
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {bad.state_file}: not a JSON file")
    assert len(result.stderr.splitlines()) == 1


def test_what_a_run_was_started_with_last_is_what_its_folder_tells(tmp_path):
    first = runs.two_iterations(runs.new_run(tmp_path))
    (first.folder / "config.json").write_text("{")
    again = dataclasses.replace(first.config, max_iterations=9)
    open_folder(Run.of(again))
    assert read_json(first.folder / "config.json")["max_iterations"] == 9
    assert math.isfinite(open_run(first.folder).config.success_threshold)
