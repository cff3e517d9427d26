"""Methods side by side: a table, success per held-out task, learning curves with bootstrap bands.

Example:
    python -m scripts.compare --out results/comparison --results \\
        loop=scripts/policies_slurm_logs/policies_slurm_diffusionseed0 \\
        transformer=results/transformer_baseline compositional=results/compositional_baseline \\
        SAC=results/sac_exp/sac_original_target_results RLPD=results/sac_exp/sac_rlpd_synthdata_results
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.main import run_main


def main(results: tuple[str, ...], out: Path = Path("results/comparison"), tasks: tuple[str, ...] = ()) -> None:
    """Read results of the loop, the baselines, sweeps, online runs or offline evaluation, and compare them.

    Args:
        results: NAME=PATH each; a folder or table of this project, PATH@METHOD for another method of its scores.csv
        out: folder for table.csv, table.md, success.png and, of online runs, curves.png and steps.csv
        tasks: only these; default: all tasks of which a method has a result
    """
    from pipeline.report.compare import compare
    from pipeline.results.methods import parse_methods

    files = compare(parse_methods(results), out, tasks)
    print((out / "table.md").read_text(encoding="utf-8"))
    print("\n".join(str(file) for file in files))


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
