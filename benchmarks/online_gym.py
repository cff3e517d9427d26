"""Our SAC beside stable-baselines3's on one of gymnasium's MuJoCo tasks: return over steps, the same steps and seeds.

Example:
    python -m benchmarks.online_gym --env_id Hopper-v5 --total_timesteps 100000 --seeds 0 1 2 --out results/online_gym

stable-baselines3 has its own defaults, but for the steps of random actions, which are the same. Both are evaluated by
the mean action in the same episodes. `curves.csv` has a row per evaluation, `curves.png` means with the range of the
seeds, `summary.json` each seed's best and last return. Runs that are finished are not run again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from corl.evaluate import evaluate
from corl.online import read_history
from corl.online_config import OnlineConfig
from envs.gymnasium_task import GymnasiumTask
from envs.pool import EnvPool
from pipeline.stages.gymnasium_sac import LearnGymnasium
from runtime.atomic import atomic_path, write_json, write_text
from runtime.checks import distinct, expect_sizes
from runtime.cli import parse_flags
from runtime.config import load_yaml
from runtime.main import run_main
from runtime.provenance import provenance
from runtime.seeds import derive_seed

_COLUMNS = ("learner", "seed", "step", "return")


def ours(task: GymnasiumTask, config: OnlineConfig, seed: int, folder: Path) -> list[tuple[int, float]]:
    """Steps and mean returns."""
    LearnGymnasium(task, config, seed, folder / f"ours_{seed}", device="cpu", threads=1)()
    return [(int(row["global_step"]), row["episodic_return"]) for row in read_history(folder / f"ours_{seed}")]


def theirs(task: GymnasiumTask, config: OnlineConfig, seed: int, folder: Path) -> list[tuple[int, float]]:
    """stable-baselines3's SAC with its defaults; an unfinished run begins anew."""
    import gymnasium
    from stable_baselines3 import SAC

    done = folder / f"stable_baselines3_{seed}.csv"
    if done.exists():
        return [(int(row["step"]), float(row["return"])) for row in csv.DictReader(io.StringIO(done.read_text()))]
    model = SAC("MlpPolicy", gymnasium.make(task.name), seed=seed, learning_starts=config.learning_starts, device="cpu")
    space = model.action_space
    assert isinstance(space, gymnasium.spaces.Box)  # SAC takes no other
    low, high = space.low, space.high

    def act(observations: np.ndarray) -> np.ndarray:
        actions, _ = model.predict(observations, deterministic=True)
        return np.asarray(2 * (actions - low) / (high - low) - 1)

    rows = []
    with EnvPool(task, config.n_episodes, horizon=config.horizon) as judge:
        while model.num_timesteps < config.max_timesteps:
            left = config.max_timesteps - model.num_timesteps
            model.learn(min(config.eval_freq, left), reset_num_timesteps=False)
            seeds = [derive_seed("evaluation", seed, episode) for episode in range(config.n_episodes)]
            rows.append((model.num_timesteps, evaluate(act, judge, seeds).mean_return))
    write_text(done, "step,return\n" + "".join(f"{step},{value}\n" for step, value in rows))
    return rows


LEARNERS: dict[str, Callable[[GymnasiumTask, OnlineConfig, int, Path], list[tuple[int, float]]]] = {
    "ours": ours,
    "stable_baselines3": theirs,
}


def draw(curves: dict[str, dict[int, list[tuple[int, float]]]], path: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, seeds in curves.items():
        steps = [step for step, _ in next(iter(seeds.values()))]
        returns = np.array([[value for _, value in rows] for rows in seeds.values()])
        line = axes.plot(steps, returns.mean(axis=0), label=name)[0]
        axes.fill_between(steps, returns.min(axis=0), returns.max(axis=0), color=line.get_color(), alpha=0.2)
    axes.set(xlabel="environment steps", ylabel="return of the mean action", title=title)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def main(
    env_id: str = "Hopper-v5",
    total_timesteps: int = 100_000,
    seeds: tuple[int, ...] = (0, 1, 2),
    learners: tuple[str, ...] = tuple(LEARNERS),
    config: Path = Path("config/online/gymnasium.yaml"),
    eval_freq: int = 5_000,
    out: Path = Path("results/online_gym"),
) -> None:
    """Train and compare.

    Args:
        env_id: a MuJoCo task of gymnasium in its version 5
        total_timesteps: steps of the environment per run
        seeds: of each learner
        learners: ours, stable_baselines3
        config: YAML file with any part of OnlineConfig
        eval_freq: steps between evaluations
        out: folder of curves.csv, curves.png, summary.json and the runs
    """
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging

    expect_sizes(total_timesteps=total_timesteps, eval_freq=eval_freq)
    distinct("--seeds", seeds)
    distinct("--learners", learners)
    if unknown := sorted(set(learners) - set(LEARNERS)):
        raise ConfigError(f"--learners {', '.join(unknown)}: expected {', '.join(LEARNERS)}")
    configure_logging()
    torch.set_num_threads(1)
    task = GymnasiumTask.standard(env_id)
    settings = load_yaml(OnlineConfig, config, {"max_timesteps": total_timesteps, "eval_freq": eval_freq})
    out.mkdir(parents=True, exist_ok=True)
    curves = {name: {seed: LEARNERS[name](task, settings, seed, out) for seed in seeds} for name in learners}
    rows = [
        f"{name},{seed},{step},{value}\n"
        for name, found in curves.items()
        for seed, points in found.items()
        for step, value in points
    ]
    write_text(out / "curves.csv", ",".join(_COLUMNS) + "\n" + "".join(rows))
    draw(curves, out / "curves.png", env_id)
    summary = {
        name: {
            str(seed): {"last": points[-1][1], "best": max(value for _, value in points)}
            for seed, points in found.items()
        }
        for name, found in curves.items()
    }
    write_json(out / "summary.json", {"task": env_id, "steps": total_timesteps, **summary, "made_with": provenance()})
    for name, found in summary.items():
        last = [each["last"] for each in found.values()]
        print(f"{env_id}, {name}: last returns {', '.join(f'{value:.0f}' for value in last)}, mean {np.mean(last):.0f}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
