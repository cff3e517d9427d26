"""Say what a Robomimic file holds: demonstrations, lengths, keys with their widths, masks.

Example:
    python -m dsrl.inspect_data --data_path datasets/lift/ph/low_dim_v141.hdf5
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from runtime.cli import parse_flags
from runtime.errors import run_main


def main(data_path: Path) -> None:
    """Print it.

    Args:
        data_path: HDF5 file
    """
    from dsrl.demos import inspect_text

    print(inspect_text(data_path))


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
