"""What every stage does, whatever it makes."""

import dataclasses
import importlib
import pickle
import pkgutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import pipeline.stages
from pipeline.jobs.stage import Stage, StageProgress
from pipeline.stages.generator import TrainGenerator
from runtime.atomic import artifact_info, read_json, side_file
from runtime.errors import StateError


@dataclass(frozen=True)
class Counts(Stage):
    """Its artifact says how often it was made in this folder."""

    folder: Path
    settings: str = "some"
    seconds: float = 0.0

    @property
    def name(self):
        return "counts"

    @property
    def output(self):
        return self.folder / "count.json"

    def key(self):
        return self.settings

    def progress(self):
        return StageProgress("counting")

    def work(self, key):
        time.sleep(self.seconds)
        tally = self.folder / "tally"
        tally.write_text((tally.read_text() if tally.exists() else "") + "x")
        self.commit({"made": len(tally.read_text())}, key)


def _made(stage):
    return read_json(stage.output)["made"]


def test_a_stage_works_once_and_leaves_its_key(tmp_path, caplog):
    caplog.set_level("INFO")
    stage = Counts(tmp_path / "new")
    stage()
    assert artifact_info(stage.output)["key"] == "some"
    pickle.loads(pickle.dumps(stage))()
    assert _made(stage) == 1
    assert "counts: finished before" in caplog.text


def test_a_stage_refuses_what_was_made_otherwise_and_leaves_it_as_it_is(tmp_path):
    Counts(tmp_path)()
    other = Counts(tmp_path, settings="others")
    with pytest.raises(StateError, match=r"count\.json: made by another configuration"):
        other()
    assert _made(other) == 1 and artifact_info(other.output)["key"] == "some"


@pytest.mark.parametrize("damage", ["bytes", "no side file"])
def test_a_stage_makes_a_damaged_record_again(tmp_path, damage):
    stage = Counts(tmp_path)
    stage()
    if damage == "bytes":
        stage.output.write_text(stage.output.read_text().replace("1", "7"))
    else:
        side_file(stage.output).unlink()
    stage()
    assert _made(stage) == 2


def test_the_second_of_two_at_once_waits_and_finds_it_done(tmp_path):
    stage = Counts(tmp_path, seconds=0.3)
    both = [threading.Thread(target=stage) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert _made(stage) == 1


def _stages():
    """The stages of the pipeline that are no base of others."""
    for module in pkgutil.iter_modules(pipeline.stages.__path__):
        importlib.import_module(f"pipeline.stages.{module.name}")
    found, todo = set(), [Stage]
    while todo:
        todo += (subclasses := todo.pop().__subclasses__())
        found |= {cls for cls in subclasses if not cls.__abstractmethods__}
    return {cls for cls in found if cls.__module__.startswith("pipeline.")}


def test_stages_are_frozen_values_and_share_how_they_are_called():
    stages = _stages()
    assert len(stages) >= 8
    for cls in stages:
        assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen, cls
        assert "threads" in {field.name for field in dataclasses.fields(cls)}, cls
    # The generator may train in several processes, of which one is the stage.
    assert {cls for cls in stages if cls.__call__ is not Stage.__call__} == {TrainGenerator}
