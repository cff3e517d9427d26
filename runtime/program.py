"""Where the program itself is: a checkout, the copy that jobs run, or an installed distribution."""

from __future__ import annotations

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent

PACKAGES = (
    "config",
    "corl",
    "diffusion",
    "dsrl",
    "envs",
    "offline_compositional_rl_datasets",
    "pipeline",
    "runtime",
    "scripts",
)
"""The folders that are the program: what a wheel installs and what jobs get a copy of."""

DISTRIBUTION = "iterative-compositional-data-generation"

EXTRAS = {
    "submitit": "slurm",
    "stable_baselines3": "robomimic",
    "minari": "export",
    "pandas": "export",
    "pyarrow": "export",
    "wandb": "track",
}
"""Module -> the extra of the distribution that brings it; everything else that is imported comes without one."""


def is_installed() -> bool:
    """Whether this is a distribution among others (`site-packages`), not a folder of its own."""
    return any(PROJECT_ROOT.glob(f"{DISTRIBUTION.replace('-', '_')}-*.dist-info"))


def own_root() -> Path:
    """What relative folders of data and results start at: the project's root, if installed the current folder."""
    return Path.cwd() if is_installed() else PROJECT_ROOT


def shipped(path: Path, start: Path = Path()) -> Path:
    """`start/path`; where it is not there, the file or folder of that name that comes with the program, if one does."""
    own = PROJECT_ROOT / path
    comes = path.parts[:1] == ("config",) and own.exists()
    return own if comes and not (start / path).exists() else start / path
