"""The copy of the program that jobs run."""

import os
import socket

from pipeline.jobs import snapshot


def test_logs_under_scripts_are_not_part_of_the_program(tmp_path, monkeypatch):
    for name in (
        "run.py",
        "slurm/1/note.json",
        "policies_slurm_logs/a.txt",
        "x_baseline_logs/1/job.pkl",
    ):
        file = tmp_path / "scripts" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    monkeypatch.setattr(snapshot, "PROJECT_ROOT", tmp_path)
    assert [file.as_posix() for file in snapshot._files()] == ["scripts/run.py"]


def test_only_regular_files_are_copied(tmp_path, monkeypatch):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "run.py").write_text("x")
    (scripts / ".#run.py").symlink_to("somebody@machine.1234:5678")  # an editor's lock
    (scripts / "circle").symlink_to("circle")
    (scripts / "null").symlink_to("/dev/null")
    (scripts / "folder").symlink_to(tmp_path)
    os.mkfifo(scripts / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(scripts)  # the address of a socket must be short
        server.bind("socket")
        monkeypatch.setattr(snapshot, "PROJECT_ROOT", tmp_path)
        copy = snapshot.take(tmp_path / "copies")
    assert [path.relative_to(copy).as_posix() for path in copy.rglob("*") if not path.is_dir()] == ["scripts/run.py"]
    assert (copy / "scripts" / "run.py").read_text() == "x"
