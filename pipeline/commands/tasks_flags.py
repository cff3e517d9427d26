"""Which tasks of which family: flags of the commands that are about tasks alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from runtime.errors import ConfigError
from runtime.flags import alias

if TYPE_CHECKING:
    from offline_compositional_rl_datasets.task import Task

# Worker processes import their parent's script: the rest is imported where it is needed.


@dataclass(frozen=True)
class TasksFlags:
    """Tasks by their names, by an element, or all of a family."""

    tasks: Annotated[tuple[str, ...], alias("task")] = ()
    """names such as IIWA_Box_None_PickPlace"""
    robot: str = ""
    """or all tasks of this robot (of a family that has some)"""
    all_tasks: bool = False
    """or all tasks of the family"""
    family: str = "composuite"
    """of the tasks, such as my_package.my_module:FAMILY"""

    def chosen(self) -> list[Task]:
        """In the order of the flag or of the family. Raises `ConfigError` unless one way of naming them is used."""
        from envs.family import find_family

        if bool(self.tasks) + bool(self.robot) + self.all_tasks != 1:
            raise ConfigError("expected one of --tasks, --robot and --all_tasks")
        family = find_family(self.family)
        if self.all_tasks:
            return family.tasks()
        return [family.parse(name) for name in self.tasks] or family.tasks_with("robot", self.robot)

    def expect_composuite(self, flag: str) -> None:
        """Raises `ConfigError` where a flag of CompoSuite's published policies is given for another family."""
        if self.family != "composuite":
            raise ConfigError(f"{flag}: published policies are of CompoSuite's tasks, not of the family {self.family}")
