"""What a task is: one element of each axis of its family. Nobody else takes a task's name apart."""

from __future__ import annotations

import dataclasses
import difflib
from typing import ClassVar, TypeVar

import numpy as np

from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.errors import TaskError

T = TypeVar("T", bound="Task")


class Task:
    """Base of the tasks of a family, e.g. `CompoSuiteTask`.

    A subclass is a frozen, ordered dataclass with a field of type str per axis; its name joins the elements by `_` in
    the order of the fields. `layout` says which elements an axis has, in the order of their one-hots. `family` is the
    name by which `envs.family` finds the family: by itself the constant `FAMILY` of the module that has the class.
    Raises `TaskError` for an element that its axis does not have.
    """

    layout: ClassVar[FactoredLayout]
    family: ClassVar[str]

    def __init_subclass__(cls) -> None:
        if "family" not in cls.__dict__:
            cls.family = f"{cls.__module__}:FAMILY"

    def __post_init__(self) -> None:
        for axis, elements in self.layout.axes:
            element = getattr(self, axis)
            if element not in elements:
                near = difflib.get_close_matches(str(element), elements, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TaskError(f"unknown {axis} {element!r}: expected one of {', '.join(elements)}{hint}")

    @classmethod
    def axes(cls) -> tuple[str, ...]:
        """The axes in the order of a name's parts."""
        return tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]

    @classmethod
    def parse(cls: type[T], name: str) -> T:
        """The task of a name `Element_Element_...`. Raises `TaskError` where there is none."""
        parts, axes = name.split("_"), cls.axes()
        if len(parts) != len(axes):
            form = "_".join(axis.capitalize() for axis in axes)
            raise TaskError(f"task {name!r} has {len(parts)} parts: expected {form}")
        return cls(*parts)

    @property
    def name(self) -> str:
        return "_".join(self.elements)

    @property
    def elements(self) -> tuple[str, ...]:
        """One element per axis, in the order of `axes`, which is that of split files."""
        return tuple(getattr(self, axis) for axis in self.axes())

    @property
    def label(self) -> str:
        """What figures call the task."""
        return " ".join(self.elements)

    def index(self, axis: str) -> int:
        """Position of this task's element in the one-hot of `axis`."""
        return dict(self.layout.axes)[axis].index(getattr(self, axis))

    @property
    def one_hot(self) -> np.ndarray:
        """(C,) float32: the one-hots of the axes in the layout's order, the condition of the generator."""
        blocks = [np.eye(len(elements), dtype=np.float32)[self.index(axis)] for axis, elements in self.layout.axes]
        return np.concatenate(blocks)

    def data_folder(self, dataset_type: str) -> str:
        """The folder within `data_path` that has the folders of the tasks' data files."""
        return dataset_type

    def __str__(self) -> str:
        return self.name
