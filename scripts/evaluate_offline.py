"""Evaluation of an agent of scripts.train_offline in the simulator.

Example:
    python -m scripts.evaluate_offline --algo cp_iql --dataset_split compositional --dataset_type medium
"""

from __future__ import annotations

from pipeline.commands.offline import evaluate_offline, parse_authors_flags
from runtime.main import run_main

main = evaluate_offline

if __name__ == "__main__":
    run_main(lambda: parse_authors_flags(main))
