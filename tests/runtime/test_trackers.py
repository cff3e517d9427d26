"""Figures that also go elsewhere."""

import importlib.util

import pytest

from runtime.errors import ConfigError
from runtime.trackers import trackers, wandb_mode


def test_wandb_is_offline_without_a_key_and_as_the_environment_says_with_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


def test_wandb_is_offline_where_its_service_does_not_answer(monkeypatch):
    def refuse(*address, **options):
        raise OSError("no route")

    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr("socket.create_connection", refuse)
    assert wandb_mode() == "offline"


def test_without_a_tracker_there_is_no_sink(tmp_path):
    with trackers(tmp_path, {}, name="x") as sink:
        assert sink is None


def test_figures_reach_an_offline_wandb_run(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    with trackers(tmp_path, {"a": 1}, name="run of a task", project="p") as sink:
        sink(1, {"eval/success_rate": 0.5})
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_tensorboard_that_is_not_installed_is_named(tmp_path):
    with (
        pytest.raises(ConfigError, match="tensorboard is not installed"),
        trackers(tmp_path, {}, name="x", tensorboard=True),
    ):
        pass
