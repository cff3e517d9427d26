import ast
import subprocess
import sys
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


# Within the packages

PIPELINE = [
    {"commands"},
    {"analysis", "sweeps"},
    {"report"},
    {"results"},
    {"loop"},
    {"stages"},
    {"jobs"},
]
PIPELINE_LEVEL = {package: level for level, packages in enumerate(PIPELINE) for package in packages}
PACKAGES = sorted(LEVEL)


def _module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in FILES}


def _targets(path):
    """The project's files that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # A name may be a file of the package, or something in its __init__.
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in inside]
        yield from (name for name in names if name in MODULES)


GRAPH = {name: set(_targets(path)) - {name} for name, path in MODULES.items()}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipeline").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_packages_of_the_pipeline_import_one_way(path):
    parts = path.relative_to(ROOT / "pipeline").parts
    assert parts == ("__init__.py",) or parts[0] in PIPELINE_LEVEL, f"{path}: a file of no package"
    for name in GRAPH[_module(path)]:
        target = name.split(".")[1] if name.startswith("pipeline.") else None
        if target and target != parts[0]:
            assert PIPELINE_LEVEL[target] > PIPELINE_LEVEL[parts[0]], f"{path.relative_to(ROOT)} imports {name}"


def _circle(graph, start):
    """Files from `start` back to it along imports; None where there is no such way."""
    before, todo = {}, [start]
    while todo:
        name = todo.pop()
        for target in sorted(graph[name]):
            if target == start:
                way = [start, name]
                while way[-1] != start:
                    way.append(before[way[-1]])
                return way[::-1]
            if target not in before:
                before[target] = name
                todo.append(target)
    return None


@pytest.mark.parametrize("package", PACKAGES)
def test_no_files_of_a_package_import_each_other_in_a_circle(package):
    for name in GRAPH:
        if name.split(".")[0] == package and MODULES[name].name != "__init__.py":
            circle = _circle(GRAPH, name)
            assert circle is None, " -> ".join(circle)


def test_a_circle_is_found_and_named():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}
    assert _circle(graph, "a") == ["a", "b", "c", "a"]
    assert _circle(graph, "d") is None


def test_the_job_layer_knows_nothing_of_what_stages_do():
    """Neither itself nor by what it imports."""
    seen, todo = set(), [name for name in MODULES if name.startswith("pipeline.jobs")]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += GRAPH[name]
    assert {name.split(".")[0] for name in seen} <= {"pipeline", "runtime"}
    program = (
        "import importlib, sys\n"
        f"for name in {sorted(n for n in seen if n.startswith('pipeline.jobs'))}: importlib.import_module(name)\n"
        "print({'torch', 'mujoco', 'matplotlib', 'diffusion', 'corl', 'envs'} & set(sys.modules) or 'none')"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "none"


DRAWING = {"matplotlib", "jinja2"}


def _draws(path):
    """Whether a file imports what draws, other than for its types."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) not in for_types and isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif id(node) not in for_types and isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return bool(DRAWING & {name.split(".")[0] for name in names})


def test_only_the_report_of_the_pipeline_draws():
    """So what runs on a cluster's nodes needs no matplotlib. `dsrl` has its curves in a file, benchmarks their own."""
    found = {_module(path) for path in FILES if _draws(path) and path.relative_to(ROOT).parts[0] != "benchmarks"}
    assert {name for name in found if not name.startswith("pipeline.report.")} == {"dsrl.curves"}
    assert {"pipeline.report.page", "pipeline.report.style"} <= found
