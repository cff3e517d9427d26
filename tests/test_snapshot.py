"""The copy of the program that jobs run."""

from pipeline import snapshot


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
    assert [file.relative_to(tmp_path).as_posix() for file in snapshot._files()] == ["scripts/run.py"]
