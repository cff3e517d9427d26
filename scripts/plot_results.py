"""The figures of a run's page as PNG and PDF for a paper, and its page anew; nothing is run.

Example: python -m scripts.plot_results --run results/loops/dit_tasklist0_train14_diffusionseed0 --out figures
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    run: Path,
    out: Path = Path("figures"),
    formats: tuple[str, ...] = ("png", "pdf"),
    dpi: int = 300,
    family: str | None = None,
) -> None:
    """Draw every figure that the run has something for, and write its page for what is known now.

    Args:
        run: folder <results>/loops/<run>, where state.json and report.html are
        out: folder to write to
        formats: file formats, of those that matplotlib knows
        dpi: resolution of png files
        family: where the run's family of tasks is, if it is not one of this project or an installed package
    """
    from pipeline.loop.run import open_run
    from pipeline.report.figures import FIGURES, success_grid
    from pipeline.report.page import report_file, write_report
    from pipeline.report.style import save_figure

    opened = open_run(run, family=family)
    figures = {name: draw(opened) for name, (draw, _) in FIGURES.items()}
    figures |= {f"success_grid_iter{it.index}": success_grid(opened, it.index) for it in opened.state.iterations}
    for name, figure in figures.items():
        if figure is None:
            print(f"{name}: nothing to show")
            continue
        for path in save_figure(figure, out / name, formats, dpi=dpi):
            print(path)
    write_report(opened)
    print(report_file(opened))


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
