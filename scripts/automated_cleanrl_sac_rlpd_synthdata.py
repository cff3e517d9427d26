"""Online SAC with generated data (RLPD) over held-out tasks x seeds, as jobs on SLURM or on this machine.

Example:
    python -u -m scripts.automated_cleanrl_sac_rlpd_synthdata --seeds 0 1 2 \\
        --base_synthetic_data_path results/best_testtask_dataset/dit_tasklist0_train14_diffusionseed0_iters4 \\
        2>&1 | tee sac_rlpd_synthdata_automated.out

Example, small and on this machine: add --config config/online/laptop.yaml --tasks IIWA_Box_None_PickPlace --cpus 2.
The same command run again continues where it was.
"""

from __future__ import annotations

from pipeline.commands.online import VARIANTS
from pipeline.commands.sweep import sweep_command
from runtime.cli import parse_flags
from runtime.main import run_main

main = sweep_command(VARIANTS["rlpd_synthdata"], "sac_rlpd_synthdata_results")

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
