"""Hold generated transitions against the simulator: put it into s, apply a, compare with s'.

Writes physics.json beside each sample file (the run's page then shows it), physics.csv and a figure (png, pdf).
Examples:
    python -m scripts.check_physics --run results/loops/dit_tasklist0_train14_diffusionseed0 --out figures
    python -m scripts.check_physics --run results/loops/dit_tasklist0_train14_diffusionseed0 --iteration 0 --rows 500
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    run: Path,
    out: Path = Path("figures"),
    iteration: int | None = None,
    rows: int = 300,
    data_path: Path | None = None,
    seed: int = 0,
    family: str | None = None,
) -> None:
    """Real data's own errors, found in the same way on the training tasks' expert data, are the measure.

    Args:
        run: folder <results>/loops/<run>, where state.json and report.html are
        out: folder for the table and the figure
        iteration: whose sets to check; default: the last that has any
        rows: transitions per generated set, and per training task
        data_path: where the expert data are, if not where the run found them
        seed: of the choice of transitions
        family: where the run's family of tasks is, if it is not one of this project or an installed package
    """
    from pipeline.analysis.physics import check_run, write_table
    from pipeline.loop.run import open_run
    from pipeline.report.physics import compare_figure
    from pipeline.report.style import save_figure

    opened = open_run(run, data_path=data_path, family=family)
    summaries = check_run(opened, iteration, rows, seed=seed)
    write_table(out / "physics.csv", summaries)
    for path in save_figure(compare_figure(summaries), out / "physics", ("png", "pdf")):
        print(path)
    for each in summaries:
        parts = [
            f"{name} {own[0.5]:.2g} ({each.quantiles('real', name)[0.5]:.2g}) {each.units[name]}"
            for name in ("arm joints", "tool position", "object position")
            if (own := each.quantiles("generated", name))
        ]
        print(f"{each.task}: median error {', '.join(parts) or 'undetermined'}")
    print("in brackets: real data")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
