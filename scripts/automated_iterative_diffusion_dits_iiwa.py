"""Iterative compositional data generation on the IIWA tasks: the main loop.

Example, the published setting on a SLURM login node:
    python -u -m scripts.automated_iterative_diffusion_dits_iiwa --max_iterations 5 --num_train 14 \\
        --diffusion_seed 0 --curriculum_seed 0 2>&1 | tee loop.out

Example, small and on this machine, from nothing:
    python -u -m scripts.automated_iterative_diffusion_dits_iiwa --config config/pipeline/demo.yaml --cluster local

The same command run again continues where it was.
"""

from __future__ import annotations

from pipeline.commands.iterate import loop_command
from runtime.cli import parse_flags
from runtime.main import run_main

main = loop_command()

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
