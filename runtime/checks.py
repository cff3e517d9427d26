"""Checks of values that a user gives, in flags and configurations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runtime.errors import ConfigError


def distinct(flag: str, values: Sequence[object]) -> None:
    """Raises `ConfigError` unless a flag has one value or more, and none of them twice."""
    if not values or len(set(values)) < len(values):
        given = ", ".join(map(str, values)) or "nothing"
        raise ConfigError(f"{flag} {given}: expected one or more, none of them twice")


def expect_sizes(**sizes: float) -> None:
    """Raises `ConfigError` unless each is a size that can be: a count of 1 or more, seconds above 0."""
    for name, value in sizes.items():
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"--{name} {value}: expected at least 1")
        if not 0 < value < math.inf:
            raise ConfigError(f"--{name} {value:g}: expected a number above 0")


def expect_range(
    values: object, *names: str, least: float = 0, most: float = math.inf, above: bool = False, below: bool = False
) -> None:
    """Raises `ConfigError` unless each of these fields is a finite number from `least` to `most`, or a list of such.

    With `above` and `below` the bounds themselves are out of range.
    """
    for name in names:
        value = getattr(values, name)
        numbers = value if isinstance(value, tuple) else (value,)
        right = [
            (number > least if above else number >= least)
            and (number < most if below else number <= most)
            and abs(number) < math.inf
            for number in numbers
        ]
        if not right or not all(right):
            several = "one or more numbers, each " if isinstance(value, tuple) else ""
            raise ConfigError(f"{name} {value}: expected {several}{_range(least, most, above, below)}")


def _range(least: float, most: float, above: bool, below: bool) -> str:
    if most < math.inf:
        return f"{'above ' * above}{least:g} to {'below ' * below}{most:g}"
    if least == -math.inf:
        return "a finite number"
    return f"{'above' if above else 'at least'} {least:g}"
