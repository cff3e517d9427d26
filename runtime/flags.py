"""Flags as fields of dataclasses: one field is one flag, the docstring below it is its help, its default is shown.

    @dataclass(frozen=True)
    class TrainFlags(ConfigFlags):
        max_timesteps: Annotated[int, alias("train_steps")] = setting(50_000)
        '''gradient steps'''
        tau: float = setting(0.005, "td3_bc.tau")
        '''step of the target networks'''

`runtime.cli.parse_flags` fills them in.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import tyro

from runtime.config import from_mapping, merge, read_yaml, to_yaml

T = TypeVar("T")
F = TypeVar("F", bound="Overrides")


def alias(*names: str) -> Any:
    """Other names of a flag, for `Annotated`: those that it was published with where another is used elsewhere."""
    return tyro.conf.arg(aliases=[f"--{name}" for name in names])


def setting(default: Any, key: str | None = None) -> Any:
    """A field that sets `key` of a configuration, `sac.tau` being `tau` in its part `sac` (None: the field's name).

    `default` is what the configuration has without a file and without the flag.
    """
    return dataclasses.field(default=default, metadata={"key": key})


@dataclass(frozen=True)
class Overrides:
    """Flags of which some are settings of a configuration: a flag that is given lies over its file, the others under.

    Given is what is on the command line, the default itself too.
    """

    _given: ClassVar[Collection[str]] = frozenset()

    def with_given(self: F, names: Collection[str]) -> F:
        """The same flags, of which those called `names` were given."""
        marked = copy.copy(self)
        object.__setattr__(marked, "_given", frozenset(names))
        return marked

    @classmethod
    def setting_keys(cls) -> dict[str, str]:
        """Name of each field that is a setting -> its key."""
        settings = [field for field in dataclasses.fields(cls) if "key" in field.metadata]
        return {field.name: field.metadata["key"] or field.name for field in settings}

    def overrides(self) -> dict[str, Any]:
        """The settings that were given, as nested mappings."""
        return self._settings(lambda is_given: is_given)

    def defaults(self) -> dict[str, Any]:
        """The settings that were not given, as nested mappings."""
        return self._settings(lambda is_given: not is_given)

    def _settings(self, which: Callable[[bool], bool]) -> dict[str, Any]:
        nested: dict[str, Any] = {}
        for name, key in self.setting_keys().items():
            if which(name in self._given):
                *parts, last = key.split(".")
                mapping = nested
                for part in parts:
                    mapping = mapping.setdefault(part, {})
                mapping[last] = getattr(self, name)
        return nested


@dataclass(frozen=True)
class ConfigFlags(Overrides):
    """Settings from a file and from flags: a flag overrides the file."""

    config: Path | None = None
    """YAML file of settings"""
    print_config: bool = False
    """print all settings as such a file, and do nothing else"""

    def load(self, cls: type[T], under: Mapping[str, Any] | None = None, over: Mapping[str, Any] | None = None) -> T:
        """The configuration `cls`: flags that were given, over the file, over the flags' defaults.

        What else its command sets lies under all of them, or over them.

        Raises `ConfigError` naming the file, or flags, and the key that cannot be used.
        """
        values = merge(merge(under or {}, self.defaults()), read_yaml(self.config) if self.config else {})
        source = str(self.config) if self.config else "flags"
        return from_mapping(cls, merge(merge(values, self.overrides()), over or {}), source=source)

    def prints(self, configuration: Any) -> bool:
        """Print it, where --print_config asks for that; whether it did."""
        if self.print_config:
            print(to_yaml(configuration), end="")
        return self.print_config
