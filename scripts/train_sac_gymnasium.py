"""Online SAC on one of gymnasium's MuJoCo tasks, as CleanRL's script for continuous actions has it.

Example:
    python -m scripts.train_sac_gymnasium --env_id Hopper-v5 --total_timesteps 100000 --seed 1

The same command run again continues. The best policy is <runs>/Hopper-v5__sac__1/checkpoints/sac_policy_model.pt, which
`python -m dsrl.collect_demos --tasks Hopper-v5 --expert ...` records demonstrations of.
"""

from __future__ import annotations

from pipeline.commands.gymnasium_sac import train_sac_gymnasium
from runtime.cli import parse_flags
from runtime.main import run_main

main = train_sac_gymnasium

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
