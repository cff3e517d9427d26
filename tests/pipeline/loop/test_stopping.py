"""A process that is told to end, by whichever signal, ends as it does on Ctrl-C: its jobs too, and its page says so."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import Episode, task_file, write_expert
from offline_compositional_rl_datasets.splits import load_split
from tests.conftest import ROOT


@pytest.fixture
def long_run(tmp_path):
    """The command of a loop on this machine whose generator would train for hours; it is started in `tmp_path`."""
    random, steps = np.random.default_rng(0), 20
    for task in load_split(CompoSuiteTask, ROOT / "tests" / "splits", "tiny", 0).train[:2]:
        states = random.normal(size=(steps, COMPOSUITE.state_dim)).astype(np.float32)
        actions = random.uniform(-1, 1, (steps, COMPOSUITE.action_dim)).astype(np.float32)
        episode = Episode(states, actions, np.zeros(steps, np.float32), np.zeros(steps, np.float32), terminated=False)
        write_expert(task_file(tmp_path / "data", "expert", task), [episode], task)
    config = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
    config["training"]["steps"], config["collect"] = 10_000_000, None
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(config))
    folders = [
        "--data_path",
        tmp_path / "data",
        "--results_path",
        tmp_path / "results",
        "--logs_path",
        tmp_path / "logs",
    ]
    script = "scripts.automated_iterative_diffusion_dits_iiwa"
    return [sys.executable, "-u", "-m", script, "--config", tmp_path / "long.yaml", *folders]


def _until_it_trains(process, folder):
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in folder.glob("results/augmented_0/diffusion/*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline, "the job did not begin"
        time.sleep(0.05)


def _processes_of(folder):
    """Command lines of the processes that have to do with a folder, by /proc."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        found += [line] if str(folder) in line else []
    return found


def _stopped(folder, name):
    """What must hold after a loop was told to end: no job, a checkpoint to go on from, a page that says why."""
    assert _processes_of(folder) == []
    (page,) = folder.glob("results/loops/*/report.html")
    assert f"<b>Stopped:</b> told to end by {name}. The same command continues it." in page.read_text()
    assert list(folder.glob("results/augmented_0/diffusion/*/resume.pt"))


def test_sigterm_stops_a_loop_with_its_jobs_as_ctrl_c_does(long_run, tmp_path):
    with subprocess.Popen(long_run, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        _until_it_trains(process, tmp_path)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert told == "told to end by SIGTERM: the same command continues where this stopped\n"
    _stopped(tmp_path, "SIGTERM")


def test_a_terminal_that_closes_stops_a_loop_with_its_jobs_as_ctrl_c_does(long_run, tmp_path):
    terminal, its_end = pty.openpty()
    taking_it = [sys.executable, "-c", "import fcntl, os, signal, sys, termios; os.setsid(); "
                 "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # ignored where the tests run under nohup
                 "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"]  # fmt: skip
    process = subprocess.Popen([*taking_it, *long_run], cwd=ROOT, stdin=its_end, stdout=its_end, stderr=its_end)
    os.close(its_end)
    _until_it_trains(process, tmp_path)
    os.close(terminal)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    _stopped(tmp_path, "SIGHUP")


IN_MAIN = "import signal, sys, time; from pathlib import Path; from runtime.main import run_main; "


def _in_main(body, *arguments, ignoring=()):
    """A process that runs `body` as an entry point does; it starts with signals ignored as a shell can leave them."""

    def begin():
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN if signum in ignoring else signal.SIG_DFL)

    code = f"{IN_MAIN}\ndef main():\n    {body}\nrun_main(main)"
    command = [sys.executable, "-u", "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=begin
    )


def test_a_lost_lease_ends_its_holder_also_where_ctrl_c_is_ignored(tmp_path):
    lock = tmp_path / "lock.json"
    body = "from runtime.lease import Lease\n    with Lease(Path(sys.argv[1]), 0.6): print('held'); time.sleep(60)"
    with _in_main(body, lock, ignoring=[signal.SIGINT]) as holder:  # as after `python ... &` in a script
        assert holder.stdout.readline() == "held\n"
        lock.unlink()
        lock.write_text("{}")
        told = holder.communicate(timeout=30)[1]
    assert holder.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in told


def test_a_second_signal_does_not_cut_off_what_the_first_has_begun():
    body = "try: print('up'); time.sleep(60)\n    finally: print('ending'); time.sleep(0.5); print('ended')"
    with _in_main(body) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30)[0] == "ended\n"
    assert process.returncode == 128 + signal.SIGHUP


def test_what_was_started_under_nohup_outlives_its_terminal():
    with _in_main("print('up'); time.sleep(0.5); print('done')", ignoring=[signal.SIGHUP]) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGHUP)
        assert process.communicate(timeout=30)[0] == "done\n"
    assert process.returncode == 0
