"""A lease is held by one process, and a dead holder's is taken over."""

import contextlib
import errno
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from filelock import LeaseCompromise

from runtime import interrupt
from runtime.lease import Lease, LeaseHeldError, is_held, waiting_lock

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
        assert f"pid={os.getpid()}\n" in path.read_text()
        assert is_held(path)
    assert not path.exists()
    assert not is_held(path)


def _record(host="elsewhere", pid=1, seconds=60.0, **more):
    """What a lease says of its holder."""
    fields = {"pid": pid, "host": host, "mode": "lease", "token": "abc", "duration": seconds, **more}
    return "filelock/2\n" + "".join(f"{name}={value}\n" for name, value in fields.items())


def test_a_number_that_another_process_has_got_since_is_not_the_holder(tmp_path):
    path = tmp_path / "lock.json"
    with Lease(path):
        record = path.read_text()
    start = next(line for line in record.splitlines() if line.startswith("start="))
    path.write_text(record.replace(start, "start=1"))
    with Lease(path):
        assert f"pid={os.getpid()}\n" in path.read_text()


@pytest.mark.parametrize("content", [_record(seconds=0.3), _record(seconds=7.0), "", "{}", _record(mode="odd")])
def test_a_holder_that_gives_no_sign_of_life_is_dead_whatever_its_record_says(content, tmp_path):
    path = tmp_path / "lock.json"
    path.write_text(content)
    started = time.monotonic()
    with Lease(path, seconds=0.3):
        assert time.monotonic() - started >= 0.3


def test_a_holder_on_another_machine_that_gives_signs_of_life_keeps_its_lease(tmp_path):
    path, done = tmp_path / "lock.json", threading.Event()
    path.write_text(_record(seconds=0.6))

    def beat():
        while not done.wait(0.02):
            os.utime(path)

    other = threading.Thread(target=beat)
    other.start()
    try:
        with pytest.raises(LeaseHeldError, match="process 1 on elsewhere"), Lease(path, seconds=0.6):
            pass
        assert is_held(path, seconds=0.6)
    finally:
        done.set()
        other.join()


def test_only_one_of_many_gets_a_dead_holders_lease(tmp_path):
    path = tmp_path / "lock.json"
    path.write_text(_record(seconds=0.5))
    _only_one_of_many_gets(path)


def _only_one_of_many_gets(path, **environment):
    script = "import sys, time; from pathlib import Path; from runtime.lease import Lease, LeaseHeldError\n" + (
        "try:\n  with Lease(Path(sys.argv[1]), seconds=0.5): print('held', flush=True); sys.stdin.read()\n"
        "except LeaseHeldError: pass"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": {**os.environ, **environment}}
    many = [subprocess.Popen([sys.executable, "-c", script, path], **pipes) for _ in range(6)]
    deadline = time.monotonic() + 60
    while sum(process.poll() is None for process in many) > 1:
        assert time.monotonic() < deadline, "more than one holds the lease"
        time.sleep(0.05)
    assert [process.communicate()[0] for process in many].count(b"held\n") == 1
    assert list(path.parent.iterdir()) == []


# A file system like an NFS without a lock daemon: it locks nothing and exchanges no names.
_LIKE_NFS = """
#include <errno.h>
int flock(int file, int operation) { errno = ENOLCK; return -1; }
int renameat2(int a, const char *from, int b, const char *to, unsigned int flags) { errno = EINVAL; return -1; }
"""


@pytest.fixture(scope="module")
def like_nfs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nfs")
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    (folder / "nfs.c").write_text(_LIKE_NFS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "nfs.so", folder / "nfs.c"], check=True)
    return {"LD_PRELOAD": str(folder / "nfs.so")}


@pytest.mark.parametrize("content", [_record(seconds=0.5), ""])
def test_a_dead_holders_lease_is_taken_over_where_names_cannot_be_exchanged(content, like_nfs, tmp_path):
    path = tmp_path / "lock.json"
    path.write_text(content)
    _only_one_of_many_gets(path, **like_nfs)


def test_a_killed_holders_folder_is_free_after_a_lease_where_files_cannot_be_locked(like_nfs, tmp_path):
    hold = "import sys, time; from pathlib import Path; from runtime.lease import waiting_lock\n" + (
        "with waiting_lock(Path(sys.argv[1]), seconds=1): print('held', flush=True); time.sleep(float(sys.argv[2]))"
    )
    command, around = [sys.executable, "-c", hold, tmp_path], {**os.environ, **like_nfs}
    with subprocess.Popen([*command, "60"], stdout=subprocess.PIPE, text=True, env=around) as holder:
        assert holder.stdout.readline() == "held\n"
        assert (tmp_path / ".lease").exists()
        holder.kill()
        holder.wait()
    assert subprocess.run([*command, "0"], stdout=subprocess.PIPE, text=True, env=around, timeout=30).stdout == "held\n"


def _in_namespace(*options, setup="true"):
    """The command that runs what follows in a namespace of its own; skips where this process may make none."""
    command = ["unshare", *options, "sh", "-c", f'{setup} && exec "$@"', "sh"]
    if os.geteuid() or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("may not make namespaces here")
    return command


def test_a_process_of_another_namespace_with_this_machines_name_keeps_its_lease(tmp_path):
    path = tmp_path / "lock.json"
    hold = [sys.executable, "-c", HOLD.replace("sys.argv[1])", "sys.argv[1]), seconds=2"), path]
    command = [*_in_namespace("--pid", "--fork", "--kill-child"), *hold]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(LeaseHeldError), Lease(path, seconds=2):
                pass
        finally:
            holder.kill()


def test_without_proc_a_killed_holders_lease_is_free_at_once(tmp_path):
    path, python = tmp_path / "lock.json", f"{shlex.quote(sys.executable)} -c"
    script = f"{python} {shlex.quote(HOLD)} {path} & while [ ! -s {path} ]; do sleep 0.05; done; kill -9 $!; wait $!; "
    script += f"timeout 30 {python} {shlex.quote(HOLD.replace('time.sleep(60)', 'pass'))} {path} && echo at once"
    command = _in_namespace("--mount", setup="mount -t tmpfs none /proc")
    told = subprocess.run([*command, "sh", "-c", script], capture_output=True, text=True).stdout
    assert told.endswith("held\nat once\n")


def test_a_full_disk_is_said_and_leaves_no_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]).returncode:
        pytest.skip("may not mount here")
    try:
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(bytes(1 << 20))
        with pytest.raises(OSError, match="No space left"), Lease(disk / "lock.json"):
            pass
        with waiting_lock(disk):
            assert {path.name for path in disk.iterdir()} == {"filler", ".lock", ".holder"}
        assert {path.name for path in disk.iterdir()} == {"filler", ".lock"}
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_holder_whose_file_system_was_away_goes_on_and_one_whose_lease_was_taken_ends(tmp_path, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(interrupt, "end_this_process", ended.set)
    path, away = tmp_path / "lock.json", tmp_path / "away"
    with Lease(path, seconds=0.6) as lease:
        loss = LeaseCompromise(str(path), "token", "refresh-failed", OSError(errno.EIO, "broken"))
        beating = threading.Thread(target=lease._compromised, args=(loss,))
        beating.start()
        before = path.stat().st_mtime_ns
        while path.stat().st_mtime_ns == before:
            time.sleep(0.02)
        assert not ended.is_set()
        path.rename(away)
        path.write_text(_record())
        assert ended.wait(5)
        beating.join()
    assert path.exists(), "another's lease stays"


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
