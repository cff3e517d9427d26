"""The wheel: what is in it, and that the program runs from it in a folder of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from runtime.program import DISTRIBUTION, EXTRAS, PACKAGES, PROJECT_ROOT

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same reader
    import tomli as tomllib

PROJECT = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
LISTED = PROJECT["tool"]["setuptools"]["packages"]
NOT_FILES = shutil.ignore_patterns("__pycache__", "slurm", "*_logs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, lest the checkout get a folder `build`."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(PROJECT_ROOT / name, source / name, ignore=NOT_FILES)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT_ROOT / name, source)
    options = ("--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", out, source], check=True)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of a venv that has the wheel, and what it requires from the venv that runs the tests."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def _run(python, *arguments, cwd):
    around = {key: os.environ[key] for key in ("PATH", "ICDG_CACHE_PATH") if key in os.environ}
    return subprocess.run(
        [python, *arguments], cwd=cwd, env=around | {"HOME": str(cwd)}, capture_output=True, text=True
    )


def test_the_list_of_packages_is_that_of_the_tree():
    found = {
        str(path.parent.relative_to(PROJECT_ROOT)).replace(os.sep, ".")
        for name in PACKAGES
        for path in (PROJECT_ROOT / name).rglob("__init__.py")
    }
    assert sorted(LISTED) == sorted(found | {"config"})
    assert {name.split(".")[0] for name in LISTED} == set(PACKAGES), "jobs get a copy of what is installed"
    assert PROJECT["project"]["name"] == DISTRIBUTION


def test_every_file_that_the_code_needs_is_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in PACKAGES:
        for path in (PROJECT_ROOT / package).rglob("*.*"):
            relative = path.relative_to(PROJECT_ROOT)
            if path.suffix in (".py", ".yaml", ".json", ".j2") and not NOT_FILES("", relative.parts):
                assert relative.as_posix() in names
    typed = {name.split("/")[0] for name in names if name.endswith("/py.typed")}
    assert typed == set(PACKAGES) - {"config"}


def test_the_wheel_is_imported_in_another_folder(python, tmp_path):
    code = """
import importlib, pathlib, sys
for name in "envs diffusion corl dsrl diffusion.train corl.td3_bc pipeline.loop.config pipeline.report.page".split():
    module = importlib.import_module(name)
    print(pathlib.Path(module.__file__).is_relative_to(sys.prefix))
from runtime.paths import machine_settings
settings = machine_settings()
print(settings.data_path, settings.results_path)
from envs.family import find_family
print(len(find_family("composuite").split("default", 0).train))
from dsrl.config import DiffusionBCConfig, load_task_config
print(load_task_config(DiffusionBCConfig, "bc", "square", None, {}).hidden_dims)
from runtime.provenance import provenance
print(provenance()["commit"])
"""
    ended = _run(python, "-c", code, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.split("\n")
    assert lines[:8] == ["True"] * 8
    version = PROJECT["project"]["version"]
    assert lines[8:12] == [
        f"{tmp_path / 'data'} {tmp_path / 'results'}",
        "224",
        "(1024, 1024, 1024)",
        f"release {version}",
    ]


def test_a_shipped_configuration_is_found_from_another_folder_and_an_own_one_comes_first(python, tmp_path):
    code = "from runtime.config import read_yaml; print(read_yaml('config/pipeline/demo.yaml'))"
    assert "policy" in _run(python, "-c", code, cwd=tmp_path).stdout
    own = tmp_path / "config" / "pipeline"
    own.mkdir(parents=True)
    (own / "demo.yaml").write_text("mine: 1\n")
    (tmp_path / "config" / "paths.yaml").write_text("data_path: mine\n")
    assert _run(python, "-c", code, cwd=tmp_path).stdout == "{'mine': 1}\n"
    code = "from runtime.paths import machine_settings; print(machine_settings().data_path)"
    assert _run(python, "-c", code, cwd=tmp_path).stdout == f"{tmp_path / 'mine'}\n"


def test_a_command_of_the_wheel_says_what_is_missing(python, tmp_path):
    ended = _run(python, "-m", "scripts.check_data", "--robot", "IIWA", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (2, f"error: {tmp_path / 'data'}: no such folder\n")


@pytest.mark.parametrize(("module", "extra"), EXTRAS.items())
def test_a_package_that_an_extra_brings_is_asked_for_in_one_line(module, extra, tmp_path):
    code = f"""
import sys
sys.modules[{module!r}] = None
from runtime.main import run_main
run_main(lambda: __import__({module!r}))
"""
    ended = _run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PROJECT_ROOT)!r}){code}", cwd=tmp_path)
    told = f"error: {module} is not installed: pip install '{DISTRIBUTION}[{extra}]' brings it\n"
    assert (ended.returncode, ended.stderr) == (2, told)
    brought = [Requirement(line).name for line in PROJECT["project"]["optional-dependencies"][extra]]
    assert canonicalize_name(module) in brought


def test_the_pinned_versions_are_within_the_ranges():
    extras = PROJECT["project"]["optional-dependencies"].values()
    ranges = [Requirement(line) for line in (*PROJECT["project"]["dependencies"], *(r for e in extras for r in e))]
    ranges = {canonicalize_name(each.name): each.specifier for each in ranges if each.name != DISTRIBUTION}
    pins = [Requirement(line) for line in (PROJECT_ROOT / "requirements.txt").read_text().splitlines() if line]
    assert {canonicalize_name(pin.name) for pin in pins} == set(ranges)
    for pin in pins:
        within, version = ranges[canonicalize_name(pin.name)], str(pin.specifier).removeprefix("==")
        assert within.contains(version), f"{pin}: expected {within}"
