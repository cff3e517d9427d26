"""The run's page: a self-contained HTML file with what is being done, success per task, curves and pictures."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from offline_compositional_rl_datasets.task import Task
from pipeline.loop.observer import Observer
from pipeline.loop.run import Run
from pipeline.report.figures import FIGURES
from pipeline.report.pictures import film_strip
from pipeline.results import tables
from pipeline.results.generated_sets import GeneratedSet, generated_sets
from pipeline.results.grid import cells_of, grid_of
from pipeline.results.history import history, stage_rows
from pipeline.results.links import links
from pipeline.results.practice_table import practice_rows
from pipeline.results.under_way import now
from pipeline.stages.paths import policy_folder
from runtime.atomic import write_json, write_text
from runtime.config import to_dict
from runtime.errors import ConfigError, UserError, one_line
from runtime.lease import is_held
from runtime.logs import duration
from runtime.media import write_picture
from runtime.provenance import provenance
from runtime.records import read_optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_UNSOLVED_STRIPS = 3  # films of the best tasks where none is solved
_LIVE_SECONDS = 60.0
_ON_PAGE = [name for name in FIGURES if name != "success_grid"]  # the page has the grid as a table
_WIDE = ("data_quality", "physics")
_writing = threading.Lock()


def report_file(run: Run) -> Path:
    return run.folder / "report.html"


def write_report(run: Run, *, pictures: bool = False, failure: str = "") -> None:
    """Write the page for the present state; with `pictures` also film the held-out tasks that were solved since.

    `failure` is why the run stopped before its end. A page that cannot be written is a warning: it must not end a run.
    """
    with _writing:
        if pictures:
            try:
                _film(run)
            except Exception:
                log.warning("no more pictures for %s", report_file(run), exc_info=True)
        try:
            write_text(report_file(run), page(run, failure=failure))
        except Exception:
            log.warning("the page %s could not be written", report_file(run), exc_info=True)


class Page(Observer):
    """The page of a run, kept up to date while it goes on."""

    def opened(self, run: Run) -> None:
        write_report(run)

    @contextlib.contextmanager
    def watch(self, current: Callable[[], Run], every_seconds: float = _LIVE_SECONDS) -> Iterator[None]:
        """Renew the page now and then while jobs run."""
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(every_seconds):
                write_report(current())

        thread = threading.Thread(target=renew, name="report", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def begun(self, run: Run) -> None:
        write_report(run)

    def judged(self, run: Run) -> None:
        write_report(run, pictures=True)

    def ended(self, run: Run) -> None:
        write_report(run, pictures=True)

    def stopped(self, run: Run, reason: str) -> None:
        write_report(run, failure=reason)


def page(run: Run, *, failure: str = "") -> str:
    """The page as HTML, for the run as it is at this moment."""
    config, state = run.config, run.state
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"shade": shade, "median": _median}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    cells = cells_of(run).values()
    tests = [cell for cell in cells if cell.kind == "held out"]
    tests.sort(key=lambda cell: -(cell.best or 0))
    iterations = [it.index for it in state.iterations]
    views = [{"name": "best", "iteration": None}, *({"name": f"iteration {i}", "iteration": i} for i in iterations)]
    sets = generated_sets(run)
    averages = tables.final_rows(run)[-1] if any(cell.best is not None for cell in tests) else {}
    return template.render(
        title=config.run_name,
        outcome=state.outcome,
        failure=failure,
        running=not state.outcome and not failure and is_held(run.lock_file),
        now=now(run),
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
        iterations=iterations,
        views=views if iterations[1:] else views[:1],
        grid=grid_of(run),
        tests=tests,
        middles=[cell for cell in cells if cell.kind == "middle"],
        train=[task.name for task in run.tasks.train],
        averages={name: f"{float(value):.2f}" for name, value in averages.items() if value and name != "task"},
        solved=len(state.solved(run.tasks.test)),
        by_practice=sum(cell.practised for cell in tests),
        practice=practice_rows(run),
        stage_names=config.stages,
        threshold=state.threshold.value,
        spent=duration(sum(sum(it.seconds.values()) for it in state.iterations)),
        history=history(run),
        stages=stage_rows(run),
        sets=sets,
        checked=any(each.physics for each in sets),
        figures=list(_figures(run)),
        strips=_strips(run),
        links=links(run),
        seeds={
            "diffusion": config.diffusion_seed,
            "curriculum": config.curriculum_seed,
            "tasks": config.task_list_seed,
            "rl": ", ".join(map(str, config.rl_seeds)),
            "middle": ", ".join(map(str, config.middle_seeds)),
        },
        config=json.dumps(to_dict(config.identity), indent=1),
        provenance=provenance(),
    )


def shade(rate: float) -> str:
    """CSS of a cell with this success: the darker the better, and readable on it."""
    low, high = (243, 247, 245), (20, 113, 63)
    colour = ",".join(str(round(a + rate * (b - a))) for a, b in zip(low, high, strict=True))
    return f"background:rgb({colour})" + (";color:#fff" if rate > 0.55 else "")


def _median(generated_set: GeneratedSet, quantity: str) -> str:
    """Median error of a physics check with that of real data in brackets."""
    physics = generated_set.physics
    if physics is None:
        return "–"
    own, real = (physics.quantiles(kind, quantity) for kind in ("generated", "real"))
    if not own:
        return "–"
    text = f"{own[0.5]:.2g} {physics.units[quantity]}"
    return f"{text} ({real[0.5]:.2g})" if real else text


def _figures(run: Run) -> Iterator[dict[str, Any]]:
    for name in _ON_PAGE:
        draw, caption = FIGURES[name]
        figure = draw(run)
        if figure is not None:
            yield {"data": _svg(figure), "caption": caption, "wide": name in _WIDE}


def _svg(figure: Figure) -> str:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class _Caption:
    """Beside a film."""

    caption: str


def _strip_file(run: Run, task: Task, iteration: int) -> Path:
    return run.folder / "pictures" / f"{task.name}_iteration{iteration}.jpg"


def filmed(run: Run) -> list[tuple[Task, int]]:
    """The held-out tasks worth a film and the iteration to film: the solved ones where their set was accepted; where
    none is solved, the best few with any success at their best."""
    state, tests = run.state, run.tasks.test
    accepted = state.accepted_in()
    solved = [(task, accepted[task]) for task in state.solved(tests)]
    if solved:
        return sorted(solved, key=lambda pair: -state.iterations[pair[1]].rates()[pair[0]])
    best = {task: found for task in tests if (found := state.best(task)) and found[0] > 0}
    ranked = sorted(best, key=lambda task: -best[task][0])
    return [(task, best[task][1]) for task in ranked[:_UNSOLVED_STRIPS]]


def _film(run: Run) -> None:
    """Film what has not been filmed yet, each as a JPEG with its caption beside it."""
    for task, iteration in filmed(run):
        path = _strip_file(run, task, iteration)
        if path.exists():
            continue
        it = run.state.iterations[iteration]
        practised = it.by_practice(task)
        seeds = (it.practised if practised else it.scores)[task]
        seed = max(seeds, key=lambda s: seeds[s].rate)
        where = run.paths.results_path, iteration, run.config.model_name(iteration), task, seed
        folder = policy_folder(*where, practised=practised)
        try:
            picture, solved = film_strip(task, folder, run.config.policy, seed)
        except ConfigError as error:
            log.info("%s", one_line(error))  # the family has none
            return
        except UserError as error:
            log.warning("no pictures of %s: %s", task, one_line(error))
            continue
        caption = (
            f"{task}: iteration {iteration}, {'practised set, ' if practised else ''}seed {seed}, "
            f"success {float(seeds[seed].rate):.2f}; this episode was "
        )
        write_json(path.with_suffix(".json"), {"caption": caption + ("solved" if solved else "not solved")})
        write_picture(path, picture, quality=82)


def _strips(run: Run) -> list[dict[str, str]]:
    """The films there are, with captions."""
    strips = []
    for task, iteration in filmed(run):
        path = _strip_file(run, task, iteration)
        caption = read_optional(_Caption, path.with_suffix(".json"))
        with contextlib.suppress(OSError):
            data = base64.b64encode(path.read_bytes()).decode()
            strips.append({"data": data, "caption": caption.caption if caption else f"{task}: iteration {iteration}"})
    return strips
