"""Between generation and validation, by hand: practise on a task in the simulator, labelled by its generator.

Example:
    python -m scripts.practise_on_generated_data --num_train 14 --target_task IIWA_Box_None_PickPlace --rounds 10
"""

from __future__ import annotations

from pipeline.commands.by_hand import practise
from runtime.cli import parse_flags
from runtime.main import run_main

main = practise

if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
