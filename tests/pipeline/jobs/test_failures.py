"""Decisions on failed jobs: pure, by cause."""

import pytest

from pipeline.jobs.failures import Cause, Evidence, Failure, Tries, classify, decide
from pipeline.jobs.resources import Resources, RetryConfig

RETRY = RetryConfig(max_retries=100, retry_delay=300, max_memory_gb=40, max_time_hours=10)


def _error(message, user=False):
    return {"outcome": "error", "user": user, "message": message, "trace": ["last line"]}


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (Evidence("OUT_OF_MEMORY"), Cause.MEMORY),
        (Evidence("FAILED", log_tail="slurmstepd: error: StepId=2.0 exceeded memory limit (9 > 1)"), Cause.MEMORY),
        (Evidence("FAILED", log_tail="slurmstepd: error: Detected 1 oom_kill event"), Cause.MEMORY),
        (Evidence("FAILED", _error("MemoryError: ")), Cause.MEMORY),
        (Evidence("TIMEOUT"), Cause.TIME),
        (Evidence("FAILED", {"outcome": "timeout"}), Cause.TIME),
        (Evidence("TIMEOUT", {"outcome": "interrupted"}), Cause.TIME),
        (Evidence("NODE_FAIL"), Cause.SYSTEM),
        (Evidence("PREEMPTED", {"outcome": "interrupted"}), Cause.SYSTEM),
        (Evidence("CANCELLED by 0", cancelled_by_user=False), Cause.SYSTEM),
        (Evidence("CANCELLED by 1000", cancelled_by_user=True), Cause.CANCELLED),
        (Evidence("CANCELLED"), Cause.CANCELLED),
        (Evidence("FAILED", _error("RuntimeError: CUDA error: uncorrectable ECC error encountered")), Cause.DEVICE),
        (Evidence("FAILED", _error("OutOfMemoryError: CUDA out of memory. Tried to allocate")), Cause.DEVICE),
        (Evidence("FAILED", _error("KeyError: 'x'")), Cause.PROGRAM),
        (Evidence("OUT_OF_MEMORY", _error("WorkerError: worker 1 of 2 ended early (killed by SIGKILL)")), Cause.MEMORY),
        (Evidence("FAILED", _error("data.hdf5: no such file", user=True)), Cause.INPUT),
        (
            Evidence("FAILED", log_tail="Traceback (most recent call last):\n  x\nImportError: no torch\n"),
            Cause.PROGRAM,
        ),
        (Evidence("FAILED", {"outcome": "running"}), Cause.SYSTEM),
        (Evidence("COMPLETED"), Cause.SYSTEM),
        (Evidence("VANISHED"), Cause.VANISHED),
    ],
)
def test_a_failure_has_the_cause_that_its_evidence_shows(evidence, cause):
    assert classify(evidence).cause is cause


def test_an_exception_before_the_stage_began_is_named_in_one_line():
    log = "Traceback (most recent call last):\n  File x\nImportError: no torch\nsrun: error: n1: task 0: Exited\n"
    assert classify(Evidence("FAILED", log_tail=log)).reason == "ImportError: no torch"


def _until_given_up(cause, memory_gb=16, hours=4.0, node=""):
    """All decisions up to the one that gives up."""
    resources, tries, decisions = Resources(memory_gb=memory_gb, hours=hours, cpus=1), Tries(), []
    while not decisions or decisions[-1].give_up is None:
        decisions.append(decide(Failure(cause, "it failed", node), resources, tries.another(), RETRY))
        resources, tries = decisions[-1].resources, decisions[-1].tries
    return decisions


def test_a_job_out_of_memory_gets_more_of_it_up_to_the_cap_and_no_further_try_there():
    *again, last = _until_given_up(Cause.MEMORY)
    assert [decision.resources.memory_gb for decision in again] == [24, 36, 40]
    assert "with 24 GB instead of 16" in again[0].line
    assert last.give_up == "it failed with 40 GB (max_memory_gb is 40)"


def test_a_job_out_of_time_gets_more_of_it_up_to_the_cap():
    *again, last = _until_given_up(Cause.TIME)
    assert [decision.resources.hours for decision in again] == [6.0, 9.0, 10]
    assert "max_time_hours is 10" in last.give_up


def test_a_request_above_the_cap_is_never_made_smaller():
    assert len(_until_given_up(Cause.MEMORY, memory_gb=400)) == 1


@pytest.mark.parametrize(("cause", "tries"), [(Cause.REFUSED, 3), (Cause.PROGRAM, 2), (Cause.DEVICE, 4)])
def test_what_hardly_passes_is_tried_a_few_times(cause, tries):
    assert len(_until_given_up(cause)) == tries


@pytest.mark.parametrize("cause", [Cause.SYSTEM, Cause.VANISHED])
def test_a_failure_of_the_system_is_tried_again_as_often_as_asked_with_longer_and_longer_waits(cause):
    *again, last = _until_given_up(cause)
    assert len(again) == 100
    assert "after 101 tries" in last.give_up
    assert [decision.delay for decision in again[:6]] == [300, 600, 1200, 2400, 3600, 3600]


def test_what_waiting_does_not_help_is_tried_at_once():
    for cause in (Cause.PROGRAM, Cause.MEMORY, Cause.TIME):
        assert _until_given_up(cause)[0].delay == 0


def test_bad_input_is_not_tried_again_and_a_cancelled_job_stops_the_loop():
    (bad,) = _until_given_up(Cause.INPUT)
    (cancelled,) = _until_given_up(Cause.CANCELLED)
    assert not bad.stop
    assert cancelled.stop


def test_a_node_whose_gpu_failed_is_avoided_from_then_on():
    decision = _until_given_up(Cause.DEVICE, node="n7")[0]
    assert decision.tries.exclude == ("n7",)
    assert "elsewhere than on n7" in decision.line
