"""Control steps per second of our environments beside bare physics, in one run.

Bare physics is `mj_step` alone on the model that we step, which lacks geoms that are only drawn, and on the whole
model, which the original steps.

Example: python -m benchmarks.env --tasks IIWA_Box_None_PickPlace --json env.json

The three are timed in alternating slices, so that a noisy machine slows both alike: look at the ratio.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from runtime.cli import parse_flags
from runtime.main import run_main

ARENAS = [f"IIWA_Box_None_{objective}" for objective in ("PickPlace", "Push", "Shelf", "Trashcan")]
ROBOTS = [f"{robot}_Box_None_PickPlace" for robot in ("Jaco", "Kinova3", "Panda")]


def measure(name: str, seconds: float) -> dict[str, float]:
    """The rates of a task, on one environment driven from its start pose by random actions."""
    import mujoco

    import envs
    from envs.composuite.scene import drawn_model
    from envs.composuite.simulation import SUBSTEPS

    env = envs.make(name, ignore_done=True)
    env.reset(seed=0)
    bare = [(model, mujoco.MjData(model)) for model in (env.simulation.model, drawn_model(env.task))]
    actions = np.random.default_rng(0).uniform(-1, 1, (1000, 8))
    spent, steps = np.zeros(3), 0
    while spent.sum() < seconds:
        for k, (model, data) in enumerate(bare):
            # From where our episode is now, so that all have the same contacts.
            data.qpos[:], data.qvel[:] = env.simulation.data.qpos, 0.0
            mujoco.mj_forward(model, data)
            start = time.perf_counter()
            for _ in range(50):
                # The arm is held against gravity, as the controller does: a fallen arm has other contacts.
                data.ctrl[:7] = data.qfrc_bias[:7]
                mujoco.mj_step(model, data, nstep=SUBSTEPS)
            spent[k] += time.perf_counter() - start
        start = time.perf_counter()
        for k in range(steps, steps + 50):
            env.step(actions[k % len(actions)])
        spent[2] += time.perf_counter() - start
        steps += 50
        if steps % 500 == 0:
            env.reset(seed=steps)
    stepped, whole, ours = steps / spent
    return {
        "bare_mj_step": stepped,
        "bare_whole_model": whole,
        "ours": ours,
        "ratio": ours / stepped,
        "ratio_to_whole_model": ours / whole,
    }


def measure_make(name: str) -> float:
    """Seconds of a `make` in a fresh process, after the model has been cached on disk (imports not counted)."""
    import subprocess
    import sys

    code = (
        "import time, envs.composuite.env; import envs; start = time.perf_counter(); "
        f"envs.make({name!r}); print(time.perf_counter() - start)"
    )
    for _ in range(2):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(result.stdout.split()[-1])


def measure_cores(name: str, seconds: float, cores: int) -> dict[str, float]:
    """Control steps/s of a `EnvPool` with a process per core, all driven by one batched call, and of one process."""
    from envs.pool import EnvPool
    from offline_compositional_rl_datasets.composuite import CompoSuiteTask

    rates = {}
    for workers in (1, cores):
        count = 10 * workers
        actions = np.random.default_rng(0).uniform(-1, 1, (200, count, 8))
        with EnvPool(CompoSuiteTask.parse(name), count, workers=workers, ignore_done=True) as env:
            env.reset(range(count))
            env.step(actions[0])
            start, steps = time.perf_counter(), 0
            while time.perf_counter() - start < seconds / 2:
                env.step(actions[steps % len(actions)])
                steps += 1
            rates[workers] = steps * count / (time.perf_counter() - start)
    return {"one_process": rates[1], "all_cores": rates[cores], "cores": cores, "speedup": rates[cores] / rates[1]}


def measure_original(name: str, seconds: float) -> float | None:
    """Control steps/s of the original CompoSuite; None where it is not installed."""
    try:
        import composuite
    except ImportError:
        return None
    from offline_compositional_rl_datasets.composuite import CompoSuiteTask

    env = composuite.make(*CompoSuiteTask.parse(name).elements, use_task_id_obs=False, ignore_done=True)
    env.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (1000, 8))
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        env.step(actions[steps % len(actions)])
        steps += 1
    return steps / (time.perf_counter() - start)


def main(
    tasks: tuple[str, ...] = tuple(ARENAS + ROBOTS), seconds: float = 8.0, quick: bool = False, json: Path | None = None
) -> None:
    """Print control steps per second (20 per simulated second), on one core and on all.

    Args:
        tasks: names of tasks; default: the four arenas and the other three robots
        seconds: time per task
        quick: two seconds per task, the first task only
        json: file for the figures
    """
    from offline_compositional_rl_datasets.composuite import CompoSuiteTask
    from runtime.atomic import write_json
    from runtime.checks import distinct, expect_sizes
    from runtime.cpus import cpu_count

    expect_sizes(seconds=seconds)
    distinct("--tasks", [CompoSuiteTask.parse(name) for name in tasks])
    if quick:
        tasks, seconds = tasks[:1], 2.0
    rows = []
    titles = f"{'mj_step':>8s} {'whole':>8s} {'ours':>8s} {'ratios':>12s} {'second make':>12s} original"
    print(f"{'control steps/s, one core':30s} {titles}")
    for name in tasks:
        row: dict[str, Any] = {"task": name, **measure(name, seconds), "second_make_seconds": measure_make(name)}
        row["original"] = measure_original(name, seconds / 2)
        rows.append(row)
        original = f"{row['original']:8.0f}" if row["original"] else "not installed"
        print(
            f"{name:30s} {row['bare_mj_step']:8.0f} {row['bare_whole_model']:8.0f} {row['ours']:8.0f} "
            f"{row['ratio']:6.2f} {row['ratio_to_whole_model']:5.2f} {row['second_make_seconds']:10.2f} s {original}",
            flush=True,
        )
    vector = measure_cores(tasks[0], seconds, cpu_count())
    print(
        f"{tasks[0]} in processes, one policy call per batch: {vector['one_process']:.0f} control steps/s in one, "
        f"{vector['all_cores']:.0f} in {vector['cores']} ({vector['speedup']:.2f} times)"
    )
    if json:
        write_json(json, {"tasks": rows, "vector": vector})


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
