"""Evaluations in processes beside the training."""

import multiprocessing
import os
import signal

import pytest

from envs.pool import WorkerError
from pipeline.jobs.failures import Cause, Evidence, classify
from pipeline.stages.evaluators import Evaluators
from tests.corl.test_corl import TASK


def test_a_killed_evaluator_is_told_in_one_line_and_classified_as_other_killed_workers():
    before = set(multiprocessing.active_children())
    with (
        pytest.raises(WorkerError, match="one of 1 processes that evaluate policies was killed") as caught,
        Evaluators(1, num_envs=1, horizon=5) as evaluators,
    ):
        result = evaluators.submit(TASK, None, [0])
        (worker,) = set(multiprocessing.active_children()) - before
        os.kill(worker.pid, signal.SIGKILL)
        result.result(timeout=60)
    note = {"outcome": "error", "user": False, "message": f"WorkerError: {caught.value}", "trace": []}
    assert "\n" not in note["message"]
    assert classify(Evidence("OUT_OF_MEMORY", note)).cause is Cause.MEMORY
    assert classify(Evidence("FAILED", note)).cause is Cause.PROGRAM
