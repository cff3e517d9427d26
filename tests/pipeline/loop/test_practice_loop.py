"""The run with practice: the real command, run whole and killed in practice; stages by hand, and the next pool."""

import csv
import os
import re
import signal
import subprocess
import sys
from fractions import Fraction

import pytest

from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.plan import generator_stage, to_practise
from pipeline.loop.run import Run, open_run
from pipeline.loop.selection import Score, Selection, Threshold
from pipeline.loop.state import Iteration
from pipeline.loop.state_file import load_state
from pipeline.results.grid import cells_of
from pipeline.stages.score_table import SCORES_FILE, read_score_table
from runtime.atomic import artifact_info
from tests.pipeline.loop.test_loop import LOOP, ROOT, RUN, _environment, _run

PRACTICE = ["--config", "tests/practice.yaml"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("practice")
    result = _run([*LOOP, *PRACTICE], folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder, result.stdout


def _practice_table(folder):
    (file,) = (folder / "logs").rglob("practice.csv")
    return list(csv.DictReader(file.open()))


def _state(folder):
    return load_state(folder / "results" / "loops" / RUN / "state.json", CompoSuiteTask.parse)


def test_practice_follows_validation_and_its_scores_stand_apart(finished):
    folder, output = finished
    order = [output.index(f"iteration 0: {what}") for what in ("train and test policies (", "practise (")]
    assert order == sorted(order) and "train and test policies of practised sets" in output
    assert "train the generator (2 jobs)" in output
    first, second = sorted((folder / "results" / "augmented_0" / "diffusion").rglob("model-*.pt"))
    assert first.read_bytes() != second.read_bytes()
    (iteration,) = _state(folder).iterations
    assert set(iteration.scores) == set(iteration.practised) == set(iteration.targets)
    rows = _practice_table(folder)
    assert len(rows) == len(iteration.targets)
    (file,) = (folder / "logs").rglob(SCORES_FILE)
    practised = [row for row in read_score_table(file) if row.method.endswith(" practised")]
    assert len(practised) == sum(len(scores) for scores in iteration.practised.values())
    for row in rows:
        task = CompoSuiteTask.parse(row["task"])
        scores = iteration.practised[task].values()
        assert row["practised_solved"] == f"{sum(s.solved for s in scores)}/{sum(s.trials for s in scores)}"
        assert row["generated_solved"] == "/".join(
            str(sum(getattr(s, name) for s in iteration.scores[task].values())) for name in ("solved", "trials")
        )
        assert 0 < int(row["control_steps"]) <= 2 * 2 * 10, "two rounds of two episodes of ten steps at most"
    page = (folder / "results" / "loops" / RUN / "report.html").read_text()
    assert "<h2>Practice</h2>" in page and "not zero-shot" in page


def test_a_loop_killed_while_it_practises_ends_with_the_same_scores(finished, tmp_path):
    command = [sys.executable, *LOOP, *PRACTICE]
    process = subprocess.Popen(command, cwd=ROOT, env=_environment(tmp_path), stdout=subprocess.PIPE, text=True)
    seen = any(re.search(r"iteration 0: practise \(", line) for line in process.stdout)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert seen, "the run came to its practice"
    last = _run([*LOOP, *PRACTICE], tmp_path)
    assert last.returncode == 0, last.stdout + last.stderr
    one, two = (_state(folder).iterations for folder in (finished[0], tmp_path))
    assert [(it.scores, it.practised, it.selection) for it in one] == [
        (it.scores, it.practised, it.selection) for it in two
    ]
    assert _practice_table(tmp_path) == _practice_table(finished[0])


def test_practice_and_its_policies_by_hand_are_those_of_the_loop(finished):
    folder, _ = finished
    flags = [*PRACTICE, "--num_train", "2", "--experiment_type", "tiny"]
    task = _state(folder).iterations[0].targets[0]
    result = _run(["-m", "scripts.practise_on_generated_data", *flags, "--target_task", task.name], folder)
    assert result.returncode == 0 and "finished before" in result.stdout, result.stdout + result.stderr
    elements = dict(zip(("--robot", "--obj", "--obst", "--subtask"), task.elements, strict=True))
    policy = ["-m", "scripts.train_augmented_policy", *PRACTICE, "--num_train", "2", "--dataset_type", "practised"]
    result = _run([*policy, *(word for pair in elements.items() for word in pair)], folder)
    assert result.returncode == 0 and "finished before" in result.stdout, result.stdout + result.stderr


def test_the_runs_generators_act_themselves_and_their_scores_are_written(finished, tmp_path):
    folder, _ = finished
    task = _state(folder).iterations[0].targets[0]
    command = ["-m", "scripts.evaluate_generator", "--run", str(folder / "results" / "loops" / RUN)]
    table = tmp_path / "scores.csv"
    result = _run([*command, "--tasks", task.name, "--episodes", "2", "--out", str(table)], folder)
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = csv.DictReader(table.open())
    assert f"{task.name:40s}   {row['solved']} of 2" in result.stdout
    assert (row["task"], row["episodes"]) == (task.name, "2")
    assert float(row["low"]) <= int(row["solved"]) / 2 <= float(row["high"])
    for flags, words in (
        (["--iteration", "7"], "iteration 7: not all of its generators are trained"),
        (["--tasks", "IIWA_Box"], "IIWA_Box"),
        (["--episodes", "0"], "episodes"),
    ):
        result = _run([*command, *flags, "--out", str(table)], folder)
        assert result.returncode != 0 and words in result.stdout + result.stderr


def test_a_practised_set_names_its_origin_in_its_side_file(finished):
    for file in (finished[0] / "results").rglob("practice/samples_0.npz"):
        practice = artifact_info(file)["practice"]
        assert set(practice["rows"]) == {"generated", "labelled", "practised"}
        assert practice["rows"]["generated"] == 100


def _loop(tmp_path, threshold, strict, practised):
    """A run whose first iteration scored one task so, before it is judged."""
    overrides = {"paths": {"results_path": tmp_path}, "success_threshold": threshold}
    run = Run.of(load_pipeline_config(ROOT / "tests" / "practice.yaml", overrides))
    task = run.tasks.test[0]
    scores = {name: {task: {0: Score(k, 20)}} for name, k in (("scores", strict), ("practised", practised)) if k >= 0}
    return run.at(run.state.begin(Iteration(0, (task,), {}, None, **scores))), task


@pytest.mark.parametrize(("strict", "asked"), [(16, True), (17, False), (0, True)])
def test_only_tasks_that_their_generated_set_does_not_solve_are_practised(tmp_path, strict, asked):
    run, task = _loop(tmp_path, 0.8, strict, -1)
    assert (task in to_practise(run, run.state.current)) == asked


def test_an_accepted_practised_set_trains_the_next_generator_in_place_of_the_generated_one(tmp_path):
    run, task = _loop(tmp_path, 0.5, 3, 18)
    current = run.state.current
    assert current.rates() == {task: Fraction(18, 20)} and current.by_practice(task)
    run = run.at(run.state.finish(Selection((task,), (), Threshold(run.state.threshold.value), practised=(task,))))
    following = Iteration(1, (), {0: (task,)}, None)
    ((_, source),) = generator_stage(run, following).sources
    assert source.parent.name == "practice"
    assert cells_of(run)[task].practised and cells_of(run)[task].rates == (3 / 20,), "the strict figure stays"


def test_a_generated_set_that_is_as_good_is_kept_as_it_is(tmp_path):
    run, task = _loop(tmp_path, 0.5, 18, 18)
    assert not run.state.current.by_practice(task)


def test_the_state_of_a_run_without_practice_is_read_as_before(tmp_path, finished):
    run = open_run(finished[0] / "results" / "loops" / RUN)
    assert run.config.stages == ("diffusion", "generation", "policy", "practice", "practised_policy")
    plain = load_pipeline_config(ROOT / "tests" / "tiny.yaml", {})
    assert "practice" not in plain.identity and plain.stages == ("diffusion", "generation", "policy")
