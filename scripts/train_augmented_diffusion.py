"""Stage 1 by hand: train the generator of one iteration.

Example:
    python -m scripts.train_augmented_diffusion --num_train 14 --diffusion_training_run 1 \\
        --source_tasks 0:IIWA_Box_None_PickPlace,IIWA_Box_None_Shelf
"""

from __future__ import annotations

from pipeline.commands.by_hand import train_generator
from runtime.cli import parse_flags
from runtime.main import run_main

main = train_generator

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
