"""The loop on a real SLURM: a run from nothing, and the faults that take little time. All: `tests/slurm/faults.py`."""

import pytest

from tests.slurm.faults import FAULTS, attempt
from tests.slurm.runs import Run

SHORT = (
    "kill -9 of a job",
    "scancel by the user",
    "scontrol requeue",
    "kill -9 of the loop between sbatch and its answer",
)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in SHORT], ids=lambda fault: fault.name)
def test_a_disturbed_loop_ends_with_the_results_of_an_undisturbed_one(fault, cluster, undisturbed, tmp_path):
    attempt(fault, cluster, tmp_path, undisturbed)


def test_jobs_are_arrays_of_several_tasks_with_names_and_logs_where_users_look(cluster, tmp_path):
    run = Run(cluster, tmp_path, training={"steps": 40}, cluster={"tasks_per_job": 2, "max_parallel": 1})
    try:
        run.again()
        assert "submitted generation_i0_2_jobs as" in run.output
        names = cluster.run("sacct", "-X", "-n", "-P", "-o", "JobName").stdout.split()
        assert "policy_i0_IIWA_Box_None_Trashcan_seed_0" in names
        policies = run.logs / "policies_slurm_logs" / "policies_slurm_diffusionseed0"
        (log,) = policies.glob("policies_slurm_middle_0/*policy_i0_IIWA_Box_None_Trashcan_seed_0.out")
        assert "policy IIWA_Box_None_Trashcan seed 0" in log.read_text()
        assert set(run.jobs_per_stage().values()) == {1}
    finally:
        run.close()
