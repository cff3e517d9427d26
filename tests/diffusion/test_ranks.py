"""Which rank variables of the surroundings a training believes."""

import os
import signal
import subprocess
import sys

import pytest

from diffusion.distributed import World
from runtime.errors import ConfigError

_RANKS = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
_TORCHRUN = {"TORCHELASTIC_RUN_ID": "none"}


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch):
    for name in (*_RANKS, *_TORCHRUN, "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(World, "_told", False)


def _set(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_variables_that_no_launcher_set_are_told_and_not_used(monkeypatch, caplog):
    _set(monkeypatch, WORLD_SIZE="4", RANK="1")
    assert World.of_environment() == World.of_environment() == World(0, 1)
    assert caplog.text.count("RANK=1, WORLD_SIZE=4: not used, since neither torchrun nor srun") == 1


def test_torchrun_and_srun_are_believed(monkeypatch):
    assert World.of_environment() == World(0, 1)
    _set(monkeypatch, **_RANKS)
    assert World.of_environment() == World(0, 1)
    _set(monkeypatch, SLURM_PROCID="1", SLURM_STEP_NUM_TASKS="4")
    assert World.of_environment() == World(1, 4)
    _set(monkeypatch, SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="1")
    assert World.of_environment() == World(0, 1), "a job of one process, started where such variables were"
    _set(monkeypatch, **_TORCHRUN)
    assert World.of_environment() == World(1, 4)


def test_half_of_a_launchers_variables_end_with_a_line_that_names_the_others(monkeypatch):
    _set(monkeypatch, WORLD_SIZE="4", MASTER_PORT="29500", **_TORCHRUN)
    with pytest.raises(ConfigError, match="WORLD_SIZE=4, MASTER_PORT=29500 without RANK, MASTER_ADDR: torchrun"):
        World.of_environment()
    _set(monkeypatch, **_RANKS | {"RANK": "4"})
    with pytest.raises(ConfigError, match="RANK=4, WORLD_SIZE=4: expected a rank"):
        World.of_environment()


def test_a_process_that_waits_for_the_others_says_for_whom_and_where(tmp_path):
    code = (
        "import torch; from runtime.logs import configure_logging; from diffusion.distributed import World\n"
        "configure_logging(); world = World.of_environment()\n"
        "with world.joined(): pass"
    )
    environment = {**os.environ, **_RANKS, **_TORCHRUN, "MASTER_PORT": "29777"}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        line = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert line.strip().endswith("process 1 of 4: waiting at 127.0.0.1:29777 until all have come")
