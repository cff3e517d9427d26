"""Online SAC with the training tasks' expert data (RLPD) over held-out tasks x seeds, as jobs on SLURM or here.

Example:
    python -u -m scripts.automated_cleanrl_sac_rlpd_14realdata --seeds 0 1 2 \\
        2>&1 | tee sac_rlpd_14realdata_automated.out

Example, small and on this machine: add --config config/online/laptop.yaml --tasks IIWA_Box_None_PickPlace --cpus 2.
The same command run again continues where it was.
"""

from __future__ import annotations

from pipeline.commands.online import VARIANTS
from pipeline.commands.sweep import sweep_command
from runtime.cli import parse_flags
from runtime.main import run_main

main = sweep_command(VARIANTS["rlpd_14realdata"], "sac_rlpd_14realdata_results")

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
