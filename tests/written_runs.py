"""Runs as a loop leaves them, by their state alone: nothing was trained."""

from decimal import Decimal

from pipeline.loop.config import load_pipeline_config
from pipeline.loop.run import Run
from pipeline.loop.selection import Score, ThresholdRule, select, task_rate
from pipeline.loop.state import Iteration
from pipeline.loop.state_file import save_state
from runtime.atomic import write_json
from runtime.config import to_dict

RULE = ThresholdRule(Decimal("0.1"), 1, Decimal("0.5"))


def new_run(folder, **settings):
    """A run of the component-wise split before its first iteration."""
    paths = {name: folder / name.removesuffix("_path") for name in ("results_path", "logs_path")}
    run = Run.of(
        load_pipeline_config(None, {"paths": paths, "rl_seeds": (0, 1), "cluster": {"kind": "local"}, **settings})
    )
    write_json(run.folder / "config.json", to_dict(run.config))
    return saved(run, run.state)


def saved(run, state):
    save_state(run.state_file, state)
    return run.at(state)


def begun(run):
    state = run.state
    targets = state.remaining(run.tasks.generated)
    return saved(run, state.begin(Iteration(state.next_index, targets, state.accepted(), None)))


def finished(run, solved_of_ten):
    """The iteration under way with every policy solving so many of ten episodes, by task."""
    it = run.state.current
    scores = {task: {s: Score(solved_of_ten(task), 10, 3.0) for s in run.seeds(task)} for task in it.targets}
    state = run.state.update(scores=scores, seconds={"diffusion": 60.0, "generation": 30.0, "policy": 90.0})
    rates = {task: task_rate(of_task) for task, of_task in scores.items()}
    return saved(run, state.finish(select(rates, state.threshold, RULE)))


def two_iterations(run):
    """All tasks of the Box are solved in the first."""
    first = finished(begun(run), lambda task: 9 if task.object == "Box" else 2)
    return finished(begun(first), lambda task: 4)
