"""Stage 2 by hand: generate data of tasks from a trained generator.

Example:
    python -m scripts.generate_augmented_data_dits --num_train 14 --target_task IIWA_Box_None_PickPlace
"""

from __future__ import annotations

from pipeline.commands.by_hand import generate
from runtime.cli import parse_flags
from runtime.main import run_main

main = generate

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
