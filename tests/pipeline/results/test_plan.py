"""What `--dry_run` says of the configurations that come with the project."""

import pytest

from pipeline.loop.config import load_pipeline_config
from pipeline.loop.run import Run
from pipeline.results.status import plan
from runtime.program import PROJECT_ROOT

CONFIGS = PROJECT_ROOT / "config" / "pipeline"


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("demo", "1 + 2 + 2 (8 policies); jobs run on local"),
        ("published_data", "2 + 10 + 19 (146 policies); jobs run on local"),
        ("laptop_grid", "2 + 10 + 19 (146 policies); jobs run on local"),
        ("one_gpu", "1 + 1 + 1 (82 policies); jobs run on local"),
        ("cluster", "1 + 50 + 178; jobs run on slurm"),
        ("paper", "1 + 50 + 178; jobs run on auto"),
    ],
)
def test_the_plan_counts_the_jobs_of_an_iteration(name, jobs, tmp_path):
    paths = {"results_path": str(tmp_path), "logs_path": str(tmp_path / "logs")}
    run = Run.of(load_pipeline_config(CONFIGS / f"{name}.yaml", {"paths": paths}))
    assert plan(run).splitlines()[-1] == f"jobs of a full iteration: {jobs}"


def test_every_configuration_of_the_loop_is_planned():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {
        "demo",
        "published_data",
        "laptop_grid",
        "one_gpu",
        "cluster",
        "paper",
    }
