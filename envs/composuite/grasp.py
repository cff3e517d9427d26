"""Is the object in the gripper? Judged by MuJoCo's contacts of the last substep."""

from __future__ import annotations

import numpy as np

from envs.composuite.robots import LEFT_FINGER, LEFT_PAD, RIGHT_FINGER, RIGHT_PAD
from envs.composuite.simulation import Simulation
from envs.task_env import HoldsViews


class GraspTest(HoldsViews):
    """Both finger pads touch the object; for the Plate one pad and the other finger are enough."""

    def __init__(self, simulation: Simulation) -> None:
        model, task = simulation.model, simulation.task
        self._data = simulation.data
        body = model.body(f"{task.object}_main").id
        self._is_object = (model.geom_bodyid == body) & (model.geom_group == 0)
        self._lenient = task.object == "Plate"

        def mask(names: tuple[str, ...]) -> np.ndarray:
            chosen = np.zeros(model.ngeom, dtype=bool)
            chosen[[model.geom(name).id for name in names]] = True
            return chosen

        self._left_pad, self._right_pad = mask(LEFT_PAD), mask(RIGHT_PAD)
        self._left, self._right = mask(LEFT_FINGER), mask(RIGHT_FINGER)

    def __call__(self) -> bool:
        pairs = self._data.contact.geom
        if not len(pairs):
            return False
        first, second = pairs[:, 0], pairs[:, 1]
        touching = np.concatenate([second[self._is_object[first]], first[self._is_object[second]]])
        left_pad, right_pad = self._left_pad[touching].any(), self._right_pad[touching].any()
        if not self._lenient:
            return bool(left_pad and right_pad)
        return bool((self._right[touching].any() and left_pad) or (self._left[touching].any() and right_pad))
