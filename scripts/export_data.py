"""Hand data on: expert data as Minari or LeRobot data sets, generated sets as flat transitions, each with a card.

Examples:
    python -m scripts.export_data --out exported --tasks IIWA_Box_None_PickPlace --data_path data
    python -m scripts.export_data --out exported --tasks IIWA_Box_None_PickPlace IIWA_Box_None_Push --format lerobot
    python -m scripts.export_data --out exported --run results/loops/dit_tasklist0_train14_diffusionseed0
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    out: Path,
    run: Path | None = None,
    tasks: tuple[str, ...] = (),
    data_path: Path | None = None,
    dataset_type: str = "expert",
    format: Literal["minari", "lerobot"] = "minari",
    licence: str = "MIT",
    family: str = "composuite",
) -> None:
    """With --run the best generated set of each task, else the expert data of --tasks. Nothing is overwritten.

    Args:
        out: folder to write to, a folder in it for each format: minari, lerobot, transitions
        run: folder <results>/loops/<run>
        tasks: names such as IIWA_Box_None_Push; with --run by default all held-out tasks
        data_path: folder of the expert data; default: of config/paths.yaml
        dataset_type: expert, medium, ...
        format: of expert data: Minari, a data set per task; or LeRobot v3.0, a data set per robot
        licence: of the data, for the cards (the published sets are CC0-1.0)
        family: of the tasks, such as my_package.my_module:FAMILY
    """
    from envs.family import find_family
    from pipeline.analysis.export import export_expert, export_lerobot, export_synthetic
    from pipeline.loop.config import PathConfig
    from runtime.errors import ConfigError

    source = PathConfig(data_path=data_path).resolved().data_path
    written: Sequence[Path | str]
    if run is not None:
        if format == "lerobot":
            raise ConfigError("--format lerobot: a LeRobot data set is made of episodes, which generated sets have not")
        written = export_synthetic(run, tasks, out, licence=licence, family=family)
    elif not tasks:
        raise ConfigError("expected --run or --tasks")
    else:
        export = export_lerobot if format == "lerobot" else export_expert
        chosen = [find_family(family).parse(name) for name in tasks]
        written = export(source, dataset_type, chosen, out, licence=licence)
    print("\n".join(map(str, written)))


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
