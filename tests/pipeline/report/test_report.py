"""The run's page and its figures, from a state and files as a run leaves them."""

import dataclasses
import json
import re
import threading
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from diffusion.quality import Quality
from envs.opengl import RenderError
from examples import arm_family
from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import task_file
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.plan import generation_stages, generator_stage, generator_stages, policies
from pipeline.loop.run import Run, open_run
from pipeline.loop.runner import carry_out
from pipeline.loop.selection import Score
from pipeline.report import page as report
from pipeline.report.figures import FIGURES, diffusion_loss
from pipeline.report.pictures import film_episode
from pipeline.results.grid import grid_of
from pipeline.results.links import _address
from pipeline.results.status import render, status_of
from pipeline.results.training_curves import loss_curves
from pipeline.results.under_way import now
from runtime.atomic import commit_artifact, write_json
from runtime.errors import ConfigError, DataError
from runtime.lease import Lease
from runtime.metrics import MetricsWriter
from runtime.paths import machine_settings
from scripts.plot_results import main as plot_results
from tests import written_runs as runs


@pytest.fixture
def run(tmp_path):
    return runs.new_run(tmp_path)


@pytest.fixture
def finished(run):
    return runs.two_iterations(run)


def test_a_page_can_be_written_before_the_first_iteration(run):
    page = report.page(run)
    assert "0 of 32" in page
    assert "Not running; the same command continues it" in page
    with Lease(run.lock_file):
        assert "Running; the page renews itself" in report.page(run)


def test_the_page_of_a_run_that_stopped_says_why_and_its_folders_are_known_later(tmp_path, monkeypatch):
    monkeypatch.setenv("ICDG_LOGS_PATH", str(tmp_path / "logs"))
    machine_settings.cache_clear()
    paths = {"results_path": tmp_path / "results", "data_path": tmp_path}
    run = Run.of(load_pipeline_config(None, {"paths": paths, "cluster": {"kind": "local"}}))
    with pytest.raises(DataError, match="no expert data of"):
        carry_out(run, [report.Page()])
    assert "<b>Stopped:</b> no expert data of" in report.report_file(run).read_text()
    monkeypatch.delenv("ICDG_LOGS_PATH")
    machine_settings.cache_clear()
    assert open_run(run.folder).paths.logs_path == tmp_path / "logs"


def test_selection_status_page_and_films_agree_on_what_is_solved(run):
    """A task is solved if its set was accepted: neither at the threshold, nor above it in an iteration under way."""
    exactly_at_it, accepted_later, unjudged = run.tasks.test[:3]
    middle = run.tasks.middle[0]
    run = runs.finished(runs.begun(run), lambda task: {exactly_at_it: 8, middle: 9}.get(task, 0))
    for _ in range(2):  # to 0.7, then to 0.6
        run = runs.finished(runs.begun(run), lambda task: 7 if task == accepted_later else 0)
    under_way = runs.begun(run).state.update(scores={unjudged: {0: Score(10, 10), 1: Score(10, 10)}})
    run = runs.saved(run, under_way)
    assert under_way.accepted() == {0: (middle,), 2: (accepted_later,)}
    assert under_way.solved(run.tasks.test) == (accepted_later,)
    assert report.filmed(run) == [(accepted_later, 2)]
    assert "<b>1 of 32</b><span>held-out tasks solved: a generated set was accepted" in report.page(run)
    assert report.page(run).count("badge") - report.page(run).count(".badge") == 2, "the table of tasks tells both"
    status = status_of(run, {})
    assert (status["solved"], status["tasks"], status["held_out_solved"], status["held_out_tasks"]) == (2, 50, 1, 32)
    assert "solved (set accepted): 2 of 50 generated tasks, 1 of 32 held out" in render(status)


def test_the_best_are_filmed_where_nothing_is_solved(run):
    first, second = run.tasks.test[:2]
    run = runs.finished(runs.begun(run), lambda task: {first: 1, second: 2}.get(task, 0))
    assert report.filmed(run) == [(second, 0), (first, 0)]


def test_the_grid_tells_train_middle_and_held_out_tasks_apart(finished):
    grid = grid_of(finished)
    cells = [cell for block in grid.blocks for row in block.rows for cell in row]
    kinds = [cell.kind for cell in cells]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"train": 14, "middle": 18, "held out": 32}
    page = report.page(finished)
    panel = page[page.index('id="panel0"') : page.index('id="panel1"')]
    assert [panel.count(f'class="{name}"') for name in ("train", "middle", "held")] == [14, 18, 32]
    box = next(cell for cell in cells if cell.task == CompoSuiteTask.parse("IIWA_Box_None_PickPlace"))
    assert (box.rates, box.accepted) == ((0.9, None), 0)


def test_the_page_needs_no_network_and_no_script(finished):
    page = report.page(finished)
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(a.startswith("data:") or not re.match(r"[a-z]+:|//", a) for a in addresses)
    assert "<script" not in page
    assert len(page) < 400_000


def test_links_of_the_page_lead_to_files(finished):
    report.write_report(finished)
    page = report.report_file(finished).read_text()
    addresses = re.findall(r'href="([^"]*)"', page)
    assert "state.json" in addresses
    assert all((finished.folder / unquote(address)).exists() for address in addresses)


@pytest.mark.parametrize("name", ["my logs", "run #1", "50%20", "why?", 'a"b&c', "javascript:x", "größe"])
def test_a_link_leads_to_a_folder_of_any_name(tmp_path, name):
    (page := tmp_path / "loops" / "run").mkdir(parents=True)
    (target := tmp_path / name).mkdir()
    address = _address(target, page)
    assert re.fullmatch(r"[A-Za-z0-9_.~/%-]+", address), "nothing that a page or a browser could take otherwise"
    found = urlsplit(urljoin(f"{page.as_uri()}/report.html", address))
    assert (Path(unquote(found.path)), found.query, found.fragment) == (target, "", "")


def test_the_page_says_what_is_being_done(run):
    assert now(run) == []
    run = runs.begun(run)
    it = run.state.current
    MetricsWriter(generator_stage(run, it).checkpoint.parent).log(step=25_000, loss=0.5)
    assert now(run) == ["Iteration 0: train the generator: step 25,000/100,000, loss 0.5000"]
    run = runs.saved(run, run.state.update(seconds={"diffusion": 1.0}))
    assert now(run) == ["Iteration 0: generate: 0 of 50 sets done"]
    run = runs.saved(run, run.state.update(seconds={"diffusion": 1.0, "generation": 1.0}))
    first, second = policies(run, run.state.current)[:2]
    run = runs.saved(run, run.state.update(scores={first.task: {first.seed: Score(1, 10)}}))
    MetricsWriter(second.folder).log(step=10_000, success_rate=0.5, mean_return=1.0)
    head, job = now(run)
    assert head == "Iteration 0: train and test policies: 1 of 82 scored"
    assert job == f"{second.task} seed 1: step 10,000/50,000, success 0.50"
    assert "1 of 82 scored" in report.page(run)
    assert "Stopped:</b> no disk" in report.page(run, failure="no disk")


def test_the_page_says_what_each_of_several_generators_does_and_draws_all_of_them(tmp_path):
    paths = {"results_path": tmp_path / "results", "logs_path": tmp_path / "logs", "data_path": tmp_path / "data"}
    two = {"generators": 2, "network": {"order": "state_first"}, "training": {"steps": 1000}}
    run = runs.begun(Run.of(load_pipeline_config(None, {"paths": paths, **two})))
    for stage, step in zip(generator_stages(run, run.state.current), (300, 200), strict=True):
        MetricsWriter(stage.checkpoint.parent).log(step=step, loss=0.5)
    first, second = now(run)
    assert first == "Iteration 0: train the generator: step 300/1,000, loss 0.5000"
    assert second == "generator 1: step 200/1,000, loss 0.5000"
    assert [curve[:2] for curve in loss_curves(run)] == [(0, 0), (0, 1)]
    (axes,) = diffusion_loss(run).axes
    assert [line.get_xdata()[-1] for line in axes.lines] == [300, 200]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["iteration 0"]


def test_the_page_says_how_many_experts_are_recorded(tmp_path):
    paths = {"results_path": tmp_path / "results", "logs_path": tmp_path / "logs", "data_path": tmp_path / "data"}
    run = Run.of(load_pipeline_config(None, {"paths": paths, "collect": {"episodes": 1}}))
    assert now(run) == ["Expert data: 0 of 14 tasks recorded"]
    path = task_file(run.paths.data_path, "expert", run.tasks.train[3])
    commit_artifact(path, lambda temporary: temporary.write_bytes(b"data"), {})
    assert "Expert data: 1 of 14 tasks recorded" in report.page(run)


def test_curves_quality_and_threshold_are_drawn_where_there_is_something_to_draw(finished):
    drawn = {name for name, (draw, _) in FIGURES.items() if draw(finished) is not None}
    assert drawn == {"success_grid", "threshold", "stage_times"}
    it = finished.state.iterations[0]
    MetricsWriter(generator_stage(finished, it).checkpoint.parent).log(step=1, loss=0.5)
    for stage in policies(finished, it):
        MetricsWriter(stage.folder).log(step=1, success_rate=0.5, mean_return=1.0)
    quality = Quality(100, 0.25, "s_object", 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.03, 0.0)
    stage = generation_stages(finished, it)[0]
    write_json(stage.quality_file, dataclasses.asdict(quality))
    drawn = {name for name, (draw, _) in FIGURES.items() if draw(finished) is not None}
    assert drawn == set(FIGURES) - {"physics"}
    page = report.page(finished)
    assert "Quality of 1 sets" in page
    assert '<figure class="wide">' in page
    assert "0.250" in page
    assert "0.7 (from 0.8)" in page


def test_a_page_that_cannot_be_written_does_not_end_the_run(finished, monkeypatch, caplog):
    monkeypatch.setattr(report, "grid_of", lambda run: 1 / 0)
    report.write_report(finished)
    assert "could not be written" in caplog.text


def test_a_page_is_written_though_no_picture_can_be_taken(finished, monkeypatch, caplog):
    monkeypatch.setattr(report, "film_strip", lambda *arguments: 1 / 0)
    report.write_report(finished, pictures=True)
    assert "no more pictures" in caplog.text
    assert "32" in report.report_file(finished).read_text()


def test_the_page_is_renewed_while_jobs_run(finished, monkeypatch):
    renewed = threading.Event()
    monkeypatch.setattr(report, "write_report", lambda run: renewed.set())
    with report.Page().watch(lambda: finished, every_seconds=0.01):
        assert renewed.wait(30)


def test_figures_of_a_run_are_written_for_a_paper(finished, tmp_path):
    plot_results(finished.folder, tmp_path / "figures", ("png", "pdf"), dpi=50)
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"success_grid.png", "success_grid.pdf", "success_grid_iter1.pdf", "threshold.png"} <= written
    assert "Quality" not in report.report_file(finished).read_text()
    quality = Quality(100, 0.25, "s_object", 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.03, 0.0)
    write_json(generation_stages(finished, finished.state.iterations[0])[0].quality_file, dataclasses.asdict(quality))
    plot_results(finished.folder, tmp_path / "figures", ("png",), dpi=50)
    assert "Quality of 1 sets" in report.report_file(finished).read_text()
    with pytest.raises(ConfigError, match="format 'xyz'"):
        plot_results(finished.folder, tmp_path / "figures", ("xyz",))
    with pytest.raises(DataError, match="not the folder of a run"):
        plot_results(tmp_path)


def test_a_run_is_read_from_its_folder_wherever_it_was_moved(finished, tmp_path):
    moved = tmp_path / "elsewhere"
    (tmp_path / "results").rename(moved)
    opened = open_run(moved / "loops" / finished.config.run_name)
    assert opened.state.iterations[0].scores == finished.state.iterations[0].scores
    assert opened.paths.results_path == moved
    assert json.loads(opened.state_file.read_text())["version"] == 1


def test_a_film_has_the_rate_of_its_family(monkeypatch):
    family = arm_family.FAMILY
    task, film = family.tasks()[0], {"horizon": 40, "seed": 0, "size": (64, 64), "every": 2}
    monkeypatch.setattr(type(family), "control_frequency", 8)
    try:
        episode = film_episode(task, family.expert(task), **film)
    except RenderError as error:
        pytest.skip(str(error))
    assert episode.rate == 4 and episode.success
