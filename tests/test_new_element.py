"""What docs/own_family.md says it takes to add an element to an axis is all it takes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The edits of the two files, made before anything reads them.
SCRIPT = """
from offline_compositional_rl_datasets import task
task.AXES["object"] = (*task.AXES["object"], "Brick")
from envs.composuite.objects import OBJECT_SPECS, ObjectSpec, Part
OBJECT_SPECS["Brick"] = ObjectSpec((Part("box", (0.02, 0.04, 0.02)),), bottom=-0.02, top=0.02, radius=0.045)

import numpy as np
import envs
environment = envs.make("IIWA_Brick_ObjectWall_PickPlace", task_ids=True)
observation, _ = environment.reset(seed=0)
for _ in range(20):
    following, reward, *_ = environment.step(np.zeros(8))
from offline_compositional_rl_datasets.layout import COMPOSUITE
state, ids = COMPOSUITE.split_ids(observation)
after, _ = COMPOSUITE.split_ids(following)
print(observation.shape, ids[:5], round(float(np.linalg.norm(after[:3] - state[:3])), 2), 0 <= reward < 1)
"""


def test_a_new_object_needs_its_name_and_its_measures(tmp_path):
    environment = {**os.environ, "ICDG_CACHE_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    # One number more than the benchmark's 93; the brick rests where it was placed.
    assert result.stdout.split("\n")[0] == "(94,) [0. 0. 0. 0. 1.] 0.0 True"
