import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [
    {"scripts", "benchmarks", "examples"},
    {"pipeline", "dsrl"},
    {"diffusion", "corl", "envs"},
    {"offline_compositional_rl_datasets"},
    {"runtime"},
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
FILES = sorted(path for package in LEVEL for path in (ROOT / package).rglob("*.py"))


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    for name in _imports(path):
        target = name.split(".")[0]
        if target in LEVEL and target != package:
            assert LEVEL[target] > LEVEL[package], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    ("package", "banned"),
    [
        ("offline_compositional_rl_datasets", {"torch", "mujoco"}),
        ("diffusion", {"mujoco", "robosuite"}),
        ("corl", {"mujoco", "robosuite"}),
        ("envs", {"torch"}),
    ],
)
def test_a_layer_does_without_what_it_must_not_need(package, banned):
    for path in (ROOT / package).rglob("*.py"):
        assert not banned & {name.split(".")[0] for name in _imports(path)}, path
