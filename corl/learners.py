"""The algorithms that can train a policy, by the name that configurations and checkpoints give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corl.bc import BC
from corl.iql import IQL
from corl.learner import Learner
from corl.sac import SAC
from corl.td3_bc import TD3BC
from runtime.config import from_mapping
from runtime.errors import ConfigError

LEARNERS: dict[str, type[Learner]] = {
    "td3_bc": TD3BC,
    "iql": IQL,
    "bc": BC,
    "sac": SAC,
}


def learner_named(name: str) -> type[Learner]:
    """Raises `ConfigError` for an unknown name."""
    if name not in LEARNERS:
        raise ConfigError(f"algorithm {name!r}: expected one of {', '.join(LEARNERS)}")
    return LEARNERS[name]


def settings_of(
    name: str, given: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """{name: the settings of the learner `name`}: what `given` has of it, laid over `defaults` and its own.

    `given` may have settings of other learners too, which are checked and not used. Raises `ConfigError` for settings
    that are not the learner's.
    """
    built = {}
    for other, settings in {name: {}, **given}.items():
        config = learner_named(other).Config
        if isinstance(settings, Mapping):
            under = (defaults or {}).get(other, {})
            # What is not read from a file needs no reader, which a benchmark on a bare machine may not have.
            settings = (
                from_mapping(config, {**under, **settings}, source=f"learners.{other}") if settings else config(**under)
            )
        if not isinstance(settings, config):
            raise ConfigError(f"learners.{other} {settings!r}: expected a mapping of its settings")
        built[other] = settings
    return {name: built[name]}
