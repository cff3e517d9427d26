"""What runs of the loop have done, do, and do next.

Example:
    python -m scripts.status
    python -m scripts.status --json --results_path results/demo | python -m json.tool
"""

from __future__ import annotations

import sys
from pathlib import Path

from runtime.cli import parse_flags
from runtime.errors import UserError, one_line
from runtime.main import run_main


def main(
    results_path: Path | None = None,
    logs_path: Path | None = None,
    run: str | None = None,
    json: bool = False,
    family: str | None = None,
) -> None:
    """Print the status of all runs on a results root: done, running, queued, failed, ETA, asked against used.

    Args:
        results_path: where results are; default from config/paths.yaml
        logs_path: where job logs are; default from config/paths.yaml
        run: the name of one run
        json: print JSON
        family: where the runs' family of tasks is, if it is not one of this project or an installed package
    """
    from json import dumps

    from pipeline.jobs.scheduler import queue
    from pipeline.loop.run import open_run
    from pipeline.results.status import find_runs, render, status_of

    jobs = queue()
    folders = [folder for folder in find_runs(results_path) if run in (None, folder.name)]
    found, wrong = [], []
    for folder in folders:
        try:
            found.append(status_of(open_run(folder, logs_path=logs_path, family=family), jobs))
        except UserError as error:  # the others can be told all the same
            wrong.append(error)
    print(dumps(found, indent=2) if json else "\n\n".join(map(render, found)))
    for other in wrong[1:]:
        print(f"error: {one_line(other)}", file=sys.stderr)
    if wrong:
        raise wrong[0]


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
