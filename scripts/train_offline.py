"""Offline training of one agent over a split of tasks.

Examples:
    python -m scripts.train_offline --algo cp_iql --dataset_split compositional --dataset_type medium
    python -m scripts.train_offline algo=cp_bc dataset.split=holdout dataset.holdout_elem=IIWA dataset.seed=3

The same command run again continues where it was stopped.
"""

from __future__ import annotations

from pipeline.commands.offline import parse_authors_flags, train_offline
from runtime.main import run_main

main = train_offline

if __name__ == "__main__":
    run_main(lambda: parse_authors_flags(main))
