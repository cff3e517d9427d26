"""Online SAC in one task with generated data of the same task in its batches (RLPD).

Example:
    python -m scripts.cleanrl_sac_rlpd_synthdata --robot IIWA --obj Dumbbell --obst ObjectWall \\
        --subtask Trashcan --seed 0 \\
        --base_synthetic_data_path results/best_testtask_dataset/dit_tasklist0_train14_diffusionseed0_iters4

Example, at a size for two CPU cores: add --config config/online/laptop.yaml. The same command run again continues.
"""

from __future__ import annotations

from pipeline.commands.online import VARIANTS, sac_command
from runtime.cli import parse_flags
from runtime.main import run_main

main = sac_command(VARIANTS["rlpd_synthdata"])

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
