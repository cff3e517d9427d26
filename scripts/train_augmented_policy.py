"""Stage 3 by hand: train a policy on one data set alone and measure it in the simulator.

Example, on generated data:
    python -m scripts.train_augmented_policy --robot IIWA --obj Box --obst None --subtask PickPlace --num_train 14

Example, on expert data:
    python -m scripts.train_augmented_policy --dataset_type expert --robot IIWA --obj Box --obst None --subtask Push
"""

from __future__ import annotations

from pipeline.commands.by_hand import train_policy
from runtime.cli import parse_flags
from runtime.main import run_main

main = train_policy

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
