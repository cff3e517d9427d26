"""Online fine-tuning of an agent of scripts.train_offline in one held-out task.

Example:
    python -m scripts.train_finetune --algo cp_iql --dataset_split compositional --dataset_type medium --task_id 3

The same command run again continues where it was stopped.
"""

from __future__ import annotations

from pipeline.commands.offline import finetune, parse_authors_flags
from runtime.main import run_main

main = finetune

if __name__ == "__main__":
    run_main(lambda: parse_authors_flags(main))
