"""The loop over all 256 tasks (56 of them with expert data) with the semantic transformer as generator.

Example:
    python -u -m scripts.automated_iterative_diffusion_dits --max_iterations 5 2>&1 | tee loop.out

The same command run again continues where it was.
"""

from __future__ import annotations

from pipeline.commands.iterate import loop_command
from runtime.cli import parse_flags
from runtime.main import run_main

main = loop_command(num_train=56, experiment_type="default")

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
