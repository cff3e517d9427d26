"""What made a result: versions, commit, machine class."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runtime.program import DISTRIBUTION, is_installed

_PACKAGES = ("torch", "numpy", "mujoco", "robosuite", "h5py")


_device = ""


def computes_on(device: str) -> bool:
    """Note the device that this process picked to compute on; whether it is another than before."""
    global _device
    changed, _device = device != _device, device
    return changed


def provenance() -> dict[str, str]:
    """Versions of Python and the packages that decide results, the project's commit where git knows it, the device."""
    return {**_versions(), **({"device": _device} if _device else {})}


@functools.cache
def _versions() -> dict[str, str]:
    record = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            record[package] = version(package)
        except PackageNotFoundError:
            record[package] = "absent"
    if os.environ.get("ICDG_COMMIT"):  # a job runs a copy of the program that git does not know
        record["commit"] = os.environ["ICDG_COMMIT"]
        return record
    if is_installed():
        record["commit"] = f"release {version(DISTRIBUTION)}"
        return record
    try:
        root = Path(__file__).resolve().parent
        command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
        record["commit"] = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        record["commit"] = "unknown"
    return record
