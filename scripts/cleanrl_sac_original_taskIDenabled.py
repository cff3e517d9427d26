"""Online SAC in one task, from scratch; the agent sees the task ids.

Example:
    python -m scripts.cleanrl_sac_original_taskIDenabled --robot IIWA --obj Dumbbell --obst ObjectWall \\
        --subtask Trashcan --seed 0

Example, at a size for two CPU cores: add --config config/online/laptop.yaml. The same command run again continues.
"""

# ruff: noqa: N999 - the published name
from __future__ import annotations

from pipeline.commands.online import VARIANTS, sac_command
from runtime.cli import parse_flags
from runtime.main import run_main

main = sac_command(VARIANTS["original"])

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
