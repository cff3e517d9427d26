"""The project's own JSON: what is written, what is read, and what is told of the rest."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from corl.multitask_config import MultitaskConfig
from corl.online import HISTORY_FILE, read_history
from corl.scores import PolicyScores
from pipeline.jobs.attempts import Ledger
from pipeline.jobs.stage import Stage, StageProgress, read_scores
from pipeline.stages.multitask import TrainMultitask
from pipeline.stages.online import online_progress
from runtime.atomic import artifact_info, read_json, side_file, verify, write_json
from runtime.errors import DataError
from runtime.metrics import MetricsWriter, read_metrics
from runtime.records import decode, read_optional, read_record


@dataclass(frozen=True)
class Inner:
    share: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner
    by_name: Mapping[str, int]
    note: str | None


GOOD = {"count": 3, "inner": {"share": 1, "words": ["a"]}, "by_name": {"x": 1}, "note": None}


def test_a_record_reads_back_as_it_was_written(tmp_path):
    write_json(tmp_path / "x.json", GOOD)
    assert read_record(Outer, tmp_path / "x.json") == Outer(3, Inner(1.0, ("a",)), {"x": 1}, None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"count": "3"}, "count is '3', expected int"),
        ({"count": 3.0}, "count is 3.0, expected int"),
        ({"count": True}, "count is True, expected int"),
        ({"count": None}, "count is None, expected int"),
        ({"inner": {"share": "1"}}, "inner.share is '1', expected float"),
        ({"inner": {"share": math.nan}}, "inner.share is nan, expected float"),
        ({"inner": {"share": 1, "words": "abc"}}, "inner.words is 'abc', expected list"),
        ({"inner": {"share": 1, "words": [1]}}, "inner.words is"),
        ({"inner": []}, r"inner is \[\], expected Inner"),
        ({"by_name": {"x": "many"}}, "by_name is 'many', expected int"),
        ({"by_name": [1]}, r"by_name is \[1\], expected"),
        ({"more": 1}, "more"),
        ({"note": 5}, "note is 5, expected"),
        ({"note": ["long"] * 1000}, r"note is \['long'.{,60}\.\.\., expected"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_key_and_file(changes, told):
    with pytest.raises(DataError, match=rf"^x\.json: .*{told}"):
        decode(Outer, GOOD | changes, source="x.json")


def test_a_missing_key_is_named():
    with pytest.raises(DataError, match=r"x: has no inner\.share"):
        decode(Outer, GOOD | {"inner": {}}, source="x")


@pytest.mark.parametrize(
    "text", ["NaN", '{"a": [1, Infinity]}', "1e999", "[" * 200_000, "\ufeff{}", "", "1" * 5000, "{"]
)
def test_what_json_does_not_have_is_not_read(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json: not a JSON file"):
        read_json(tmp_path / "x.json")


def test_a_number_that_is_not_finite_is_refused_by_its_place_and_what_was_there_stays(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"scores": {"mean": 1.0}})
    for value, place in ((math.nan, "scores.mean is nan"), ([0.0, -math.inf], "scores.mean.1 is -inf")):
        with pytest.raises(DataError, match=rf"result\.json: {place}, expected finite numbers; not written"):
            write_json(path, {"scores": {"mean": value}})
    assert read_json(path) == {"scores": {"mean": 1.0}}


def test_metrics_keep_what_is_no_number_as_null_and_it_is_passed_over(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.log(step=1, loss=0.5)
    writer.log(step=2, loss=math.nan)
    writer.log(step=3, other=1.0)
    assert [json.loads(line).get("loss") for line in writer.path.read_text().splitlines()] == [0.5, None, None]
    assert [row["step"] for row in read_metrics(writer.path)] == [1, 2, 3]
    assert [row["step"] for row in read_metrics(writer.path, "loss")] == [1]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[]\n", b"null\n", b'{"loss": 1}\n', b'{"step": "1"}\n', b"["]
)
def test_foreign_metrics_have_no_rows_and_a_writer_goes_on(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    assert read_metrics(tmp_path / "metrics.jsonl", "loss") == []
    MetricsWriter(tmp_path, resume_from=5).log(step=6, loss=1.0)
    assert read_metrics(tmp_path / "metrics.jsonl", "loss") == [{"step": 6, "loss": 1.0}]


def test_optional_information_is_a_warning_once_and_another_versions_keys_are_passed_over(tmp_path, caplog):
    path = tmp_path / "x.json"
    assert read_optional(Outer, path) is None
    write_json(path, GOOD | {"of_the_future": 1})
    assert read_optional(Outer, path).count == 3
    assert not caplog.records
    path.write_bytes(b"\xff")
    assert [read_optional(Outer, path) for _ in range(3)] == [None] * 3
    (record,) = caplog.records
    assert f"{path}: not a JSON file" in record.message
    path.unlink()
    path.mkdir()
    assert read_optional(Outer, path) is None


SCORES = {"episodes": 10, "best_solved": 4, "best_return": 1.0, "last_solved": 3, "last_return": 0.5}


@dataclass(frozen=True)
class Result(Stage):
    """A stage whose artifact is a record."""

    path: Path

    @property
    def name(self):
        return "result"

    @property
    def output(self):
        return self.path

    def key(self):
        return "k"

    def progress(self):
        return StageProgress("writing")

    def work(self, key):
        raise AssertionError("it is not made here")


def _committed(tmp_path, scores=SCORES):
    stage = Result(tmp_path / "result.json")
    stage.commit({"scores": scores}, "k")
    return stage


def test_a_result_whose_bytes_were_changed_counts_as_not_done(tmp_path, caplog):
    stage = _committed(tmp_path)
    assert stage.is_done()
    assert read_scores(PolicyScores, stage.output).solved == 4
    stage.output.write_text(stage.output.read_text().replace('"best_solved": 4', '"best_solved": 9'))
    assert not stage.is_done()
    assert "result.json: damaged; it is made again" in caplog.text


@pytest.mark.parametrize(
    "side", ["[]", "null", "{}", '{"bytes": 3}', "[" * 100_000, '{"bytes": %d, "sha256": "x", "info": []}', b"\xff"]
)
def test_a_side_file_that_is_damaged_vouches_for_nothing(tmp_path, side):
    stage = _committed(tmp_path)
    size = stage.output.stat().st_size
    content = side if isinstance(side, bytes) else (side % size if "%d" in side else side).encode()
    side_file(stage.output).write_bytes(content)
    assert artifact_info(stage.output) is None
    assert not stage.is_done()
    verify(stage.output)


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (None, "scores: holds None"),
        ([], "scores: holds"),
        (SCORES | {"best_solved": 11}, "11 of 10"),
        (SCORES | {"episodes": 0}, "of 0"),
        (SCORES | {"episodes": 1.5}, "episodes is 1.5"),
        ({"episodes": 10}, "has no best_solved"),
    ],
)
def test_scores_that_cannot_be_are_named_with_their_file(tmp_path, scores, told):
    with pytest.raises(DataError, match=rf"result\.json: scores: .*{told}|result\.json: {told}"):
        read_scores(PolicyScores, _committed(tmp_path, scores).output)


def test_one_damaged_record_of_a_job_leaves_the_others(tmp_path, caplog):
    resources = {"memory_gb": 1, "hours": 1, "cpus": 1, "gpus": 0}
    tries = {"tries": 1, "failures": {"memory": 1}, "exclude": ["n1"]}
    good = {
        "key": "k",
        "job_id": "7",
        "ticket": "t",
        "place": 0,
        "submitted": 1.0,
        "resources": resources,
        "tries": tries,
    }
    damaged = {
        "no object": [],
        "no key": {**good, "key": 5},
        "no memory": {**good, "resources": {**resources, "memory_gb": 0}},
        "words": {**good, "tries": {**tries, "failures": {"memory": "often"}}},
    }
    write_json(tmp_path / "jobs.json", {"good": good, **damaged})
    ledger = Ledger(tmp_path / "jobs.json")
    assert list(ledger.records) == ["good"]
    assert ledger.records["good"].tries.exclude == ("n1",)
    assert all(f"jobs.json: {name}: " in caplog.text for name in damaged)
    for text in ("[]", "null", "NaN", "[" * 100_000):
        (tmp_path / "jobs.json").write_text(text)
        assert Ledger(tmp_path / "jobs.json").records == {}


@pytest.mark.parametrize("text", ["", "step\n1\n", "global_step,episodic_return\n1,2\n", "global_step\none\n"])
def test_a_history_of_evaluations_that_is_damaged_is_named_and_progress_is_told_without_it(tmp_path, text):
    MetricsWriter(tmp_path).log(step=5, loss=1.0)
    (tmp_path / HISTORY_FILE).write_text(text)
    assert online_progress(tmp_path, 10).fraction == 0.5
    if text:
        with pytest.raises(DataError, match=rf"^{tmp_path / HISTORY_FILE}: "):
            read_history(tmp_path)


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ([], "holds a list"),
        ({"final_eval_results": []}, "holds a list of tasks"),
        ({"train_task_results": {"T": {"solved": 1}}}, "T: has no mean_reward"),
        ({"best_score_checkpoint": {"per_task_results": {"T": 5}}}, "T: holds 5"),
    ],
)
def test_multitask_results_that_are_none_are_named(tmp_path, results, told):
    stage = TrainMultitask((), (), MultitaskConfig(), 0, tmp_path)
    write_json(stage.output, results)
    with pytest.raises(DataError, match=rf"^{stage.output}: {told}"):
        stage.results()
