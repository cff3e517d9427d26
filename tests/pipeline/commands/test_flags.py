"""Flags of the commands: what help shows is what holds, and what a configuration prints loads again to the same."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

from corl.multitask_config import MultitaskConfig
from corl.online_config import OnlineConfig
from pipeline.commands.baseline import BaselineFlags, baseline_command
from pipeline.commands.by_hand import generate, practise, train_generator, train_policy
from pipeline.commands.gymnasium_sac import train_sac_gymnasium
from pipeline.commands.iterate import loop_command
from pipeline.commands.job_flags import ClusterFlags, JobFlags, LoopRetryFlags
from pipeline.commands.offline import finetune
from pipeline.commands.online import VARIANTS, SACFlags, sac_command
from pipeline.commands.pipeline_flags import LoopFlags, PractiseFlags, TrainGeneratorFlags, TrainPolicyFlags
from pipeline.commands.sweep import sweep_command
from pipeline.jobs.resources import ClusterConfig, RetryConfig
from pipeline.loop.config import PipelineConfig
from runtime.cli import parse_flags
from runtime.config import from_mapping, to_dict
from runtime.errors import ConfigError
from runtime.flags import ConfigFlags, alias, setting

COMMANDS = {
    "sac": (sac_command(VARIANTS["original"]), OnlineConfig),
    "sac with generated data": (sac_command(VARIANTS["rlpd_synthdata"]), OnlineConfig),
    "sweep": (sweep_command(VARIANTS["rlpd_14realdata"], "x"), OnlineConfig),
    "transformer": (baseline_command("transformer"), MultitaskConfig),
    "compositional": (baseline_command("compositional"), MultitaskConfig),
    "gymnasium": (train_sac_gymnasium, OnlineConfig),
    "fine-tune": (finetune, OnlineConfig),
    "loop": (loop_command(num_train=56, experiment_type="default"), PipelineConfig),
    "loop with perceptrons": (loop_command("monolithic"), PipelineConfig),
    "train the generator": (train_generator, PipelineConfig),
    "generate": (generate, PipelineConfig),
    "practise": (practise, PipelineConfig),
    "train a policy": (train_policy, PipelineConfig),
}
REQUIRED = {
    "practise": ["--target_task", "IIWA_Box_None_Push"],
    "train a policy": ["--robot", "IIWA", "--obj", "Box", "--obst", "None", "--subtask", "Push"],
}


def _at(values: Any, key: str) -> Any:
    return functools.reduce(lambda part, name: part[name], key.split("."), values)


@pytest.mark.parametrize(
    ("flags", "config"),
    [
        (SACFlags(), OnlineConfig()),
        (BaselineFlags(), MultitaskConfig()),
        (ClusterFlags(), ClusterConfig()),
        (LoopRetryFlags(), RetryConfig()),
        (JobFlags(), RetryConfig()),
        (LoopFlags(), PipelineConfig()),
        (TrainGeneratorFlags(), PipelineConfig()),
        (PractiseFlags(), PipelineConfig()),
        (TrainPolicyFlags(), PipelineConfig()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_defaults_of_flags_are_those_of_the_configuration(flags, config):
    shown = {name: getattr(flags, name) for name in flags.setting_keys()}
    assert to_dict(shown) == {name: _at(to_dict(config), key) for name, key in flags.setting_keys().items()}


def _help(main, capsys) -> dict[str, str]:
    """Default that help shows of each flag."""
    with pytest.raises(SystemExit):
        parse_flags(main, ["--help"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    entries = re.split(r"(?:^| )--(?=\w+[ ,])", " ".join(line for line in lines if not line.startswith("─")))
    return {match[1]: match[2] for e in entries if (match := re.match(r"(\w+) .*\(default: (.*?)\)", e))}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_defaults_that_hold_and_the_printed_configuration_loads_again(name, capsys, tmp_path):
    main, cls = COMMANDS[name]
    shown = _help(main, capsys)
    parse_flags(main, [*REQUIRED.get(name, ()), "--print_config"])
    text = capsys.readouterr().out
    settings = yaml.safe_load(text)
    flags = next(kind for kind in _groups(main) if issubclass(kind, ConfigFlags))
    compared = 0
    for field, key in flags.setting_keys().items():
        if field in shown:
            value = None if shown[field] == "None" else yaml.safe_load(shown[field])
            assert value == _at(settings, key), field
            compared += 1
    assert compared >= 4
    (tmp_path / "c.yaml").write_text(text)
    parse_flags(main, [*REQUIRED.get(name, ()), "--config", str(tmp_path / "c.yaml"), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out) == settings
    assert to_dict(from_mapping(cls, settings, source="printed")) == settings


def _groups(main) -> list[type]:
    return [kind for kind in typing.get_type_hints(main).values() if dataclasses.is_dataclass(kind)]


def test_a_flag_that_repeats_the_default_lies_over_the_file_and_one_that_is_not_given_under_it(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("{num_envs: 3, eval_freq: 7, sac: {tau: 0.5}}")
    main = sac_command(VARIANTS["original"])
    parse_flags(main, ["--config", str(tmp_path / "c.yaml"), "--num-envs", "1", "--tau=0.005", "--print_config"])
    settings = yaml.safe_load(capsys.readouterr().out)
    assert (settings["num_envs"], settings["eval_freq"], settings["sac"]["tau"]) == (1, 7, 0.005)
    assert settings["task_ids"] is True


@dataclasses.dataclass(frozen=True)
class _Settings:
    steps: int = 5
    fast: bool = True


@dataclasses.dataclass(frozen=True)
class _Flags(ConfigFlags):
    steps: Annotated[int, alias("n_steps", "max_steps")] = setting(5)
    """how many"""
    quick: Annotated[bool, alias("hurry")] = setting(True, "fast")
    """or not"""
    out: Annotated[Path | None, alias("folder")] = None
    """where"""


def test_a_flag_goes_by_its_published_names_too_but_by_one_of_them_at_a_time():
    def main(flags: _Flags) -> tuple:
        return flags.load(_Settings), flags.overrides(), flags.out

    assert parse_flags(main, []) == (_Settings(), {}, None)
    given = {"steps": 3, "fast": False}
    assert parse_flags(main, ["--n-steps", "3", "--no-hurry"]) == (_Settings(3, False), given, None)
    assert parse_flags(main, ["--max_steps=3", "--folder", "x"])[2] == Path("x")
    assert parse_flags(main, ["--hurry=False", "--steps", "3"]) == (_Settings(3, False), given, None)
    with pytest.raises(ConfigError, match="--n_steps and --max_steps name the same thing: give one of them"):
        parse_flags(main, ["--n_steps", "3", "--max_steps", "3"])
    with pytest.raises(ConfigError, match=r"unknown flag --max_step; did you mean --max_steps\?"):
        parse_flags(main, ["--max_step", "3"])
    with pytest.raises(ConfigError, match="--hurry 'maybe': expected a switch, --quick or --no_quick"):
        parse_flags(main, ["--hurry=maybe"])
