"""Results of all kinds in one table and one picture."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from corl.online import HISTORY_COLUMNS
from pipeline.report.compare import _draw_success, compare
from pipeline.results.curves import aligned, band
from pipeline.results.methods import Method, parse_methods, read_method
from pipeline.stages.score_table import SCORES_FILE, ScoreRow, write_score_table
from runtime.cli import parse_flags
from runtime.errors import ConfigError, DataError
from runtime.tables import write_csv
from scripts.compare import main

PUSH, SHELF = "IIWA_Box_None_Push", "IIWA_Box_None_Shelf"


def _history(path, successes, step=100):
    rows = [
        dict.fromkeys(HISTORY_COLUMNS, 0) | {"global_step": (i + 1) * step, "success_rate": s}
        for i, s in enumerate(successes)
    ]
    write_csv(path, HISTORY_COLUMNS, rows)


def _everything(root):
    loop = root / "loop"
    for iteration, rates in ((0, ("0.1", "0.2")), (10, ("0.5", "0.6")), (9, ("0.3", "0.3"))):
        rows = [{"task": t, "iter_0": r, "best_rate": r} for t, r in zip((PUSH, SHELF), rates, strict=True)]
        rows.append({"task": "AVERAGE_BEST_RATE", "best_rate": "0.55"})
        write_csv(loop / f"final_test_task_table_iter{iteration}.csv", ["task", "iter_0", "best_rate"], rows)
    rows = [
        {"task": PUSH, "success_seed0": "0.2", "success_seed1": "0.6"},
        {"task": SHELF, "success_seed0": "1", "success_seed1": "1"},
        {"task": "OVERALL_AVERAGE", "success_seed0": "0.9", "success_seed1": "0.9"},
    ]
    columns = ["task", "success_seed0", "success_seed1"]
    write_csv(root / "base" / "transformer_baseline_results.csv", columns, rows)
    write_csv(root / "base" / "transformer_baseline_results_train_tasks.csv", columns, rows[1:])
    for seed, successes in ((0, [0.0, 0.5, 1.0]), (3, [0.0, 0.1])):
        _history(root / "runs" / f"composuite_{PUSH}__cleanrl_sac_x__{seed}" / "eval_history.csv", successes)
    return [f"loop={loop}", f"transformer={root / 'base'}", f"SAC={root / 'runs'}"]


def test_the_loop_the_baselines_and_online_runs_stand_in_one_table(tmp_path, capsys):
    out = tmp_path / "out"
    parse_flags(main, ["--results", *_everything(tmp_path), "--out", str(out)])
    with (out / "table.csv").open(newline="") as file:
        push, shelf, average = csv.DictReader(file)
    assert (push["loop"], push["transformer"], push["SAC"]) == ("0.5000", "0.4000", "0.5500")
    assert (push["loop_seeds"], push["SAC_seeds"], push["loop_low"]) == ("1", "2", "")
    assert float(push["transformer_low"]) == pytest.approx(0.2)
    assert float(push["transformer_high"]) == pytest.approx(0.6)
    assert (shelf["SAC"], shelf["transformer"]) == ("", "1.0000")
    assert average["task"] == "average of 1 shared tasks"
    markdown = (out / "table.md").read_text()
    assert f"| {PUSH} | 0.50 | 0.40 [0.20, 0.60] |" in markdown
    assert "| - |" in markdown
    for name in ("success.png", "curves.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert markdown in capsys.readouterr().out
    assert f"| {PUSH} | 300; > 200 |" in markdown
    with (out / "steps.csv").open(newline="") as file:
        runs = [(row["method"], row["seed"], row["solved_at"], row["steps"]) for row in csv.DictReader(file)]
    assert runs == [("SAC", "0", "300", "300"), ("SAC", "3", "", "200")]


def test_the_loops_table_per_seed_and_offline_evaluation_are_read_too(tmp_path):
    columns = ["robot", "object", "obstacle", "subtask", "score_seed0", "success_seed0", "success_seed4"]
    row = dict(zip(columns, ("IIWA", "Box", "None", "Push", "100", "0.7", ""), strict=True))
    write_csv(tmp_path / "loop.csv", columns, [row])
    assert read_method("a", tmp_path / "loop.csv").success == {PUSH: {0: 0.7}}
    write_csv(tmp_path / "any.csv", ["task", "success_rate"], [{"task": PUSH, "success_rate": "0.3"}])
    assert read_method("a", tmp_path / "any.csv").success == {PUSH: {0: 0.3}}


def test_scores_of_any_method_are_read(tmp_path):
    """The loop's best iteration counts, elsewhere the last step; what stands beside a method is asked for by name."""
    loop = [
        ScoreRow(PUSH, "loop", 0, 0, 1, 10, 5.0), ScoreRow(PUSH, "loop", 1, 0, 9, 10, 5.0),
        ScoreRow(PUSH, "loop", 0, 1, 8, 10, 5.0), ScoreRow(PUSH, "loop", 1, 1, 8, 10, 5.0),
        ScoreRow(PUSH, "loop", 0, 2, 7, 10, 5.0), ScoreRow(PUSH, "loop", 1, 2, 9, 10, 5.0),
        ScoreRow(PUSH, "loop practised", 0, 1, 10, 10, 5.0),
    ]  # fmt: skip
    write_score_table(tmp_path / "loop" / SCORES_FILE, loop)
    method = read_method("a", tmp_path / "loop")
    assert (method.success, method.curves) == ({PUSH: {0: 0.8, 1: 0.8}}, {})
    assert read_method("a", Path(f"{tmp_path / 'loop'}@loop practised")).success == {PUSH: {0: 1.0}}
    with pytest.raises(DataError, match=r"scores\.csv: has no method 'other', there are loop, loop practised"):
        read_method("a", Path(f"{tmp_path / 'loop'}@other"))
    online = [ScoreRow(SHELF, "SAC", 3, step, step // 100, 10, -1.5) for step in (100, 200)]
    write_score_table(tmp_path / "sac" / SCORES_FILE, online)
    method = read_method("a", tmp_path / "sac" / SCORES_FILE)
    assert (method.success, method.curves) == ({SHELF: {3: 0.2}}, {SHELF: {3: {100: 0.1, 200: 0.2}}})


def test_two_results_of_a_task_and_seed_are_refused_not_mixed(tmp_path):
    for variant in ("original", "rlpd"):
        _history(tmp_path / "runs" / f"composuite_{PUSH}__{variant}__0" / "eval_history.csv", [0.5])
    with pytest.raises(DataError, match=f"rlpd__0/eval_history.csv: a second run of {PUSH} with seed 0"):
        parse_methods([f"SAC={tmp_path / 'runs'}"])
    table = tmp_path / "table.csv"
    write_csv(table, ["task", "success_rate"], [{"task": PUSH, "success_rate": rate} for rate in (0.1, 0.2)])
    with pytest.raises(DataError, match=f"{PUSH} with seed 0 is there twice"):
        parse_methods([f"SAC={table}"])
    history = tmp_path / f"composuite_{PUSH}__x__0" / "eval_history.csv"
    row = {"global_step": 5, "success_rate": 0.5}
    write_csv(history, list(row), [row, row])
    with pytest.raises(DataError, match="two evaluations at step 5"):
        parse_methods([f"SAC={history}"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no table of results"),
        (b"task,success_rate\n", "no table of results"),
        (b"task,success_seed0,success_seed1\nIIWA_Box_None_Push,,\n", "no table of results"),
        (b"task,success_rate\nIIWA_Box_None_Push,nan\n", "success nan, expected 0 to 1"),
        (b"task,success_rate\nIIWA_Box_None_Push,80\n", "success 80, expected 0 to 1"),
        (b"task,success_rate\nIIWA_Box_None_Push\n", "not a table of results"),
        (b"task,score\nIIWA_Box_None_Push,1\n", "it has no column 'success_rate'"),
        (b"task,seed,global_step\nIIWA_Box_None_Push,0,5\n", "it has no column 'success_rate'"),
        (b"\xff\xfe\x00", "not a table of results"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, content, message):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_method("a", tmp_path / "x.csv")
    assert "x.csv" in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "expected at least one NAME=PATH"),
        (["SAC", "SAC"], "the name SAC is given twice"),
        (["SAC", "SAC_low"], "the table has a column SAC_low already"),
        (["SAC_low", "SAC"], "the table has a column SAC already"),
        (["task"], "the table has a column task already"),
        (["a|b"], "without |"),
    ],
)
def test_names_that_a_table_cannot_hold_are_refused(tmp_path, names, message):
    write_csv(tmp_path / "x.csv", ["task", "success_rate"], [{"task": PUSH, "success_rate": 1}])
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_methods([f"{name}={tmp_path / 'x.csv'}" for name in names])


def test_tasks_that_nobody_has_are_named_even_beside_known_ones(tmp_path):
    methods = parse_methods(_everything(tmp_path))
    with pytest.raises(ConfigError, match=f"--tasks IIWA_Box_None_Pusch: .* there are {PUSH}, {SHELF}"):
        compare(methods, tmp_path / "out", [PUSH, "IIWA_Box_None_Pusch"])
    with pytest.raises(ConfigError, match="none of them twice"):
        compare(methods, tmp_path / "out", [PUSH, PUSH])


def test_the_picture_names_the_robot_where_tasks_differ_by_it(tmp_path):
    from matplotlib import pyplot

    def labels(tasks):
        _draw_success([Method("a", {task: {0: 1.0} for task in tasks})], tasks)
        texts = [label.get_text() for label in pyplot.gca().get_xticklabels()]
        pyplot.close()
        return texts

    assert labels([PUSH, SHELF]) == ["Box\nNone\nPush", "Box\nNone\nShelf"]
    assert labels([PUSH, "Panda_Box_None_Push"]) == ["IIWA\nBox\nNone\nPush", "Panda\nBox\nNone\nPush"]
    assert labels(["mine"]) == ["mine"]


def test_a_run_that_ended_early_keeps_its_last_value():
    steps, values = aligned({0: {100: 0.0, 200: 1.0}, 1: {150: 0.2, 300: 0.4}})
    assert steps.tolist() == [150, 200, 300]
    assert values.tolist() == [[0.0, 1.0, 1.0], [0.2, 0.2, 0.4]]


def test_a_band_holds_the_mean_narrows_with_seeds_and_needs_two():
    values = np.random.default_rng(0).normal(0.5, 0.1, (40, 3))
    low, high = band(values)
    assert ((low < values.mean(axis=0)) & (values.mean(axis=0) < high)).all()
    few_low, few_high = band(values[:4])
    assert (few_high - few_low > high - low).all()
    assert band(values[:1]) is None
    expected = 2 * 1.96 * values.std(axis=0) / np.sqrt(40)
    np.testing.assert_allclose(high - low, expected, rtol=0.15)


def test_what_cannot_be_compared_is_named(tmp_path):
    with pytest.raises(ConfigError, match="NAME=PATH"):
        parse_methods(["results"])
    with pytest.raises(DataError, match="no such file or folder"):
        parse_methods([f"a={tmp_path / 'gone'}"])
    with pytest.raises(DataError, match="no table of results"):
        parse_methods([f"a={tmp_path}"])
    (tmp_path / "x.csv").write_text("task,colour\nIIWA_Box_None_Push,red\n")
    with pytest.raises(DataError, match="not a table of results"):
        parse_methods([f"a={tmp_path / 'x.csv'}"])
    with pytest.raises(ConfigError, match="no method has a result"):
        compare(parse_methods(_everything(tmp_path)), tmp_path / "out", ["IIWA_Plate_None_Shelf"])
