"""Runs as a loop leaves them, by their state alone: nothing was trained."""

from decimal import Decimal

from pipeline.loop.config import load_pipeline_config
from pipeline.loop.runner import Loop
from pipeline.loop.selection import Score, ThresholdRule, select, task_rate
from pipeline.loop.state import Iteration, save_state
from runtime.atomic import write_json
from runtime.config import to_dict

RULE = ThresholdRule(Decimal("0.1"), 1, Decimal("0.5"))


def new_run(folder, **settings):
    """A run of the component-wise split before its first iteration."""
    paths = {name: folder / name.removesuffix("_path") for name in ("results_path", "logs_path")}
    loop = Loop(
        load_pipeline_config(None, {"paths": paths, "rl_seeds": (0, 1), "cluster": {"kind": "local"}, **settings})
    )
    write_json(loop.folder / "config.json", to_dict(loop.config))
    return saved(loop, loop.state)


def saved(loop, state):
    loop.state = state
    save_state(loop.state_file, state)
    return loop


def begun(loop):
    state = loop.state
    targets = state.remaining(loop.tasks.generated)
    return saved(loop, state.begin(Iteration(state.next_index, targets, state.accepted(), None)))


def finished(loop, solved_of_ten):
    """The iteration under way with every policy solving so many of ten episodes, by task."""
    it = loop.state.current
    scores = {task: {s: Score(solved_of_ten(task), 10, 3.0) for s in loop.seeds(task)} for task in it.targets}
    state = loop.state.update(scores=scores, seconds={"diffusion": 60.0, "generation": 30.0, "policy": 90.0})
    rates = {task: task_rate(of_task) for task, of_task in scores.items()}
    return saved(loop, state.finish(select(rates, state.threshold, RULE)))


def two_iterations(loop):
    """All tasks of the Box are solved in the first."""
    finished(begun(loop), lambda task: 9 if task.object == "Box" else 2)
    return finished(begun(loop), lambda task: 4)
