"""What docs/own_family.md says it takes to add an element to an axis is all it takes: its own examples, as written."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from envs.compiled import cache_folder
from envs.composuite.env import CompoSuiteEnv
from envs.composuite.robots import RobotSpec, robot_model
from envs.experts import expert_for
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from runtime.errors import TaskError
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "own_family.md").read_text()

# Elements are appended before anything else reads the axes, as they are in the file; then the page's lines go in.
SCRIPT = """
import re, sys
from pathlib import Path
from offline_compositional_rl_datasets import composuite as task
axis, element, name = sys.argv[1:4]
tasks, elements = len(task.all_tasks()), len(task.AXES[axis])
last = task.AXES[axis][-1]
source = Path(task.__file__).read_text()
source = re.sub(rf'^({axis}S = .*"{last}")\\)', rf'\\1, "{element}")', source, flags=re.I | re.M)
exec(source, vars(task))
import numpy as np
for place, text in zip(sys.argv[4::2], sys.argv[5::2]):
    module = __import__(place.removesuffix(".py").replace("/", "."), fromlist=["x"])
    if text.startswith("class"):
        exec(text, vars(module))
    else:
        table, key, entry = re.match(r"(\\w+)\\[\\"(\\w+)\\"\\] = (.*)", text, re.DOTALL).groups()
        vars(module)[table][key] = eval(entry, vars(module))
import envs
from envs.experts import expert_for
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from pipeline.loop.curriculum import schedule
environment = envs.make(name, task_ids=True)
expert = expert_for(environment.unwrapped.task)
observation, _ = environment.reset(seed=0)
start, ids = COMPOSUITE.split_ids(observation)
success = False
for step in range(int(name == sys.argv[3]) * 320):
    state, ids = COMPOSUITE.split_ids(observation)
    action = expert(state[None])[0]
    assert np.isfinite(action).all() and np.abs(action).max() <= 1
    observation, reward, terminated, truncated, info = environment.step(action)
    assert np.isfinite(observation).all() and 0 <= reward <= 1
    success = info["success"]
    if success or terminated:
        break
assert ids.sum() == 4 and any(phase.element == element for phase in schedule(task.curriculum_axes(), 0))
assert len(task.all_tasks()) == len(set(task.all_tasks())) == tasks // elements * (elements + 1)
print(observation.shape[0], success)
"""


def _pairs(axis):
    """The page's example for an axis: file and statement in turn. A block goes into the file named last before it."""
    section = PAGE[PAGE.index(f"### {axis}") :].split("\n### ")[0].split("\n## ")[0]
    file, pairs = "", []
    for paragraph in re.split(r"\n\n(?=\S)|\n\n(?=    (?=\w+\[|class ))", section):
        if not paragraph.startswith("    "):
            file = (re.findall(r"`([\w/]+\.py)`", paragraph) or [file])[0]
            continue
        pairs += [file, "\n".join(line[4:] for line in paragraph.splitlines()).strip()]
    return pairs


def _try(axis, element, name, tmp_path, *pairs):
    environment = {**os.environ, "ICDG_CACHE_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment["NUMBA_CACHE_DIR"] = str(cache_folder() or tmp_path)  # the models alone are others
    command = [sys.executable, "-c", SCRIPT, axis, element, name, *pairs]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("axis", "element", "name"),
    [
        ("object", "Brick", "IIWA_Brick_None_PickPlace"),
        ("obstacle", "LowWall", "IIWA_Box_LowWall_PickPlace"),
        ("objective", "Corner", "IIWA_Box_None_Corner"),
        ("robot", "Sawyer", "Sawyer_Box_None_PickPlace"),
    ],
)
def test_a_new_element_works_as_the_page_writes_it(axis, element, name, tmp_path):
    result = _try(axis, element, name, tmp_path, *_pairs(axis))
    assert result.returncode == 0, result.stderr
    # One number more than without it, and the scripted expert solves its task.
    assert result.stdout.split("\n")[-2] == f"{COMPOSUITE.observation_dim + 1} True"


@pytest.mark.parametrize(
    ("axis", "lacking", "use"),
    [
        ("object", "envs/composuite/objects.py", CompoSuiteEnv),
        ("object", "envs/experts/grasps.py", expert_for),
        ("obstacle", "envs/composuite/obstacles.py", CompoSuiteEnv),
        ("obstacle", "envs/experts/paths.py", expert_for),
        ("objective", "envs/composuite/objectives.py", CompoSuiteEnv),
        ("objective", "envs/experts/targets.py", expert_for),
        ("robot", "envs/composuite/robots.py", CompoSuiteEnv),
    ],
)
def test_the_file_that_says_nothing_of_an_element_is_named(axis, lacking, use, monkeypatch):
    axes = tuple((name, (*elements, *["Novel"] * (name == axis))) for name, elements in COMPOSUITE.axes)
    monkeypatch.setattr(CompoSuiteTask, "layout", dataclasses.replace(COMPOSUITE, axes=axes))
    elements = {"robot": "IIWA", "object": "Box", "obstacle": "None", "objective": "PickPlace", axis: "Novel"}
    task = CompoSuiteTask(**elements)
    with pytest.raises(TaskError, match=rf"^{task}: {lacking} .* {axis} 'Novel'"):
        use(task)


def test_an_arm_that_does_not_fit_the_layout_is_refused():
    with pytest.raises(TaskError, match=r"a start pose of 6 joints: .* have 7"):
        RobotSpec((0.0,) * 6)
    with pytest.raises(TaskError, match="robot 'UR5e' has 6 joints, expected 7"):
        robot_model("UR5e")
    with pytest.raises(TaskError, match="robot 'Elbow': robosuite has Baxter, IIWA"):
        robot_model("Elbow")
