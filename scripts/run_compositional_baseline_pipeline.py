"""Multitask TD3+BC with the hard-coded compositional network, over the training tasks with task ids.

Example, the published setting on a SLURM login node:
    python -u -m scripts.run_compositional_baseline_pipeline --num_train 14 --seeds 0 1 2 3 4 --memory 50 --time 24

Example, small and on this machine, on the data that the demo records:
    python -u -m scripts.run_compositional_baseline_pipeline --config config/multitask/laptop.yaml --cluster local \\
        --experiment_type demo --num_train 4 --seeds 0 --data_path data/demo --results_path results/demo

The same command run again continues where it was.
"""

from __future__ import annotations

from pipeline.commands.baseline import baseline_command
from runtime.cli import parse_flags
from runtime.main import run_main

main = baseline_command("compositional")

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
