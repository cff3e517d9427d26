"""A lease is held by one process, and a dead holder's is taken over."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from runtime.lease import Lease, LeaseHeldError, waiting_lock

HOLD = "import sys, time; from pathlib import Path; from runtime.lease import Lease\n" + (
    "with Lease(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def test_a_lease_is_refused_while_another_process_holds_it_and_free_when_that_is_killed(tmp_path):
    path = tmp_path / "lock.json"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LeaseHeldError, match=f"process {holder.pid} on"), Lease(path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with Lease(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_a_number_that_another_process_has_got_since_is_not_the_holder(tmp_path):
    path = tmp_path / "lock.json"
    with Lease(path):
        record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "start": "another-boot:1"}))
    with Lease(path):
        pass


def test_a_holder_on_another_machine_is_dead_if_it_gives_no_sign_of_life(tmp_path):
    path = tmp_path / "lock.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "start": "x", "beat": "1"}))
    started = time.monotonic()
    with Lease(path, seconds=0.3):
        assert time.monotonic() - started >= 0.3


def test_a_holder_on_another_machine_that_gives_signs_of_life_keeps_its_lease(tmp_path):
    path, done = tmp_path / "lock.json", threading.Event()

    def beat():
        for i in range(1000):
            path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "start": "x", "beat": f"{i:012d}"}))
            if done.wait(0.02):
                return

    path.write_text("{}")
    other = threading.Thread(target=beat)
    other.start()
    try:
        time.sleep(0.05)
        with pytest.raises(LeaseHeldError, match="on elsewhere"), Lease(path, seconds=0.6):
            pass
    finally:
        done.set()
        other.join()


def test_only_one_of_many_gets_a_dead_holders_lease(tmp_path):
    path = tmp_path / "lock.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "start": "x", "beat": "1"}))
    script = "import sys, time; from pathlib import Path; from runtime.lease import Lease, LeaseHeldError\n" + (
        "try:\n  with Lease(Path(sys.argv[1]), seconds=0.5): print('held', flush=True); time.sleep(2)\n"
        "except LeaseHeldError: pass"
    )
    many = [subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) for _ in range(6)]
    assert [process.communicate()[0] for process in many].count(b"held\n") == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, None])
def test_who_waits_gets_the_lock_when_its_holder_is_done_with_and_without_locks_of_the_file_system(
    number, tmp_path, monkeypatch, caplog
):
    if number is not None:

        def refuse(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refuse)
    order, held = [], threading.Event()

    def hold():
        with waiting_lock(tmp_path, seconds=0.6):
            held.set()
            time.sleep(0.3)
            order.append("first")

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    with caplog.at_level("INFO"), waiting_lock(tmp_path, seconds=0.6):
        order.append("second")
    other.join()
    assert order == ["first", "second"]
    told = [record.message for record in caplog.records if "waiting until it is done" in record.message]
    assert len(told) == 1, "the wait is told once"
    assert f"{tmp_path}: process {os.getpid()} on " in told[0]
    with caplog.at_level("INFO"), waiting_lock(tmp_path, seconds=0.6):
        assert caplog.records[-1].message == told[0], "a free lock is not waited for"


def test_another_fault_of_the_file_system_than_having_no_locks_is_raised(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="broken"), waiting_lock(tmp_path):
        pass
