"""A run's generators as policies in the simulator, one evaluation a control step: half a minute a task.

It shows whether a generator knows what to do in a task before sets are drawn and policies trained, such as to choose
how long it should learn. It uses the simulator of the held-out tasks, so the loop does not.
Examples:
    python -m scripts.evaluate_generator --run results/loops/dit_tasklist0_train14_diffusionseed0
    python -m scripts.evaluate_generator --run results/... --tasks IIWA_Box_None_PickPlace --episodes 40
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    run: Path,
    out: Path = Path("generator_policy.csv"),
    tasks: tuple[str, ...] = (),
    iteration: int | None = None,
    episodes: int = 16,
    seed: int = 0,
    device: str = "auto",
    family: str | None = None,
) -> None:
    """Print and write, task by task, the success at the last step of an episode.

    Args:
        run: folder <results>/loops/<run>, where state.json and report.html are
        out: table (csv)
        tasks: names of tasks; default: all held-out ones of the run
        iteration: whose generators; default: the last whose generators are trained
        episodes: per task, seeded
        seed: of the episodes
        device: auto, cpu or cuda[:N]
        family: where the run's family of tasks is, if it is not one of this project or an installed package
    """
    from pipeline.analysis.generator_policy import score_generators, write_scores
    from pipeline.loop.run import open_run
    from runtime.checks import expect_sizes
    from runtime.logs import configure_logging

    expect_sizes(episodes=episodes)
    configure_logging()
    opened = open_run(run, family=family)
    chosen = [opened.family.parse(name) for name in tasks] or list(opened.tasks.test)
    scores = []
    for score in score_generators(opened, iteration, chosen, episodes, device=device, seed=seed):
        solved = f"{score.solved:3d} of {score.episodes}"
        print(f"{score.task.name:40s} {solved}, return {score.mean_return:.0f}", flush=True)
        scores.append(score)
        write_scores(out, scores)
    print(f"{sum(score.solved for score in scores)} of {sum(score.episodes for score in scores)}; table in {out}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
