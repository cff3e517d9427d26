"""What the tests of every training loop share: a stop on the way, and files that cannot be continued from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime import interrupt
from runtime.checkpoint import load_checkpoint
from runtime.resumable import RESUME_FILE

Loop = Callable[[Path], Any]
"""Trains in a folder to the end, or goes on there; what it has learned."""


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ask to stop within a step of an optimiser, the first one that comes after so many."""
    update, taken = torch.optim.Adam.step, []

    def step(self: torch.optim.Adam, *arguments: Any) -> Any:
        taken.append(None)
        if len(taken) == steps:
            interrupt.request(15)
        return update(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)


def stopped(loop: Loop, folder: Path, steps: int) -> Path:
    """The file that a run which was asked to stop after so many optimiser steps has left."""
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(interrupt.Interrupted):
        stop_after(monkeypatch, steps)
        loop(folder)
    interrupt.clear()
    return folder / RESUME_FILE


def expect_equal(one: Any, two: Any) -> None:
    """Every tensor, array and value of a nest, to the bit."""
    if isinstance(one, Mapping):
        assert set(one) == set(two)
        for key in one:
            expect_equal(one[key], two[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, two)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            expect_equal(a, b)
    else:
        assert one == two


def _paths(value: Any, kind: type, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, kind):
        yield path
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _paths(inner, kind, (*path, key))


def _changed(state: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    state = copy.deepcopy(state)
    holder = state
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = change(holder[path[-1]])
    return state


def others(path: Path) -> Iterator[tuple[str, Any]]:
    """Contents of the same key and format that are not what this program writes, each with a name."""
    state = load_checkpoint(path)
    for key in sorted(set(state) - {"format", "key"}):
        yield f"without {key}", {name: value for name, value in state.items() if name != key}
    weights = [p for p in _paths(state, torch.Tensor) if state_at(state, p).is_floating_point() and "state" not in p]
    moments = [p for p in _paths(state, torch.Tensor) if "exp_avg" in p]
    yield "a weight of another shape", _changed(state, weights[0], lambda value: torch.zeros(3, 1, 2))
    yield "a weight of another type", _changed(state, weights[1], lambda value: value.double())
    yield "a weight that is not finite", _changed(state, weights[0], lambda value: torch.full_like(value, torch.nan))
    yield "a moment of another shape", _changed(state, moments[0], lambda value: torch.zeros(3, 1, 2))
    yield "something more", {**state, "more": 1}
    inner = next(p for p in _paths(state, dict) if len(p) == 2)
    yield "a part that is text", _changed(state, inner, lambda value: "text")


def state_at(state: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        state = state[key]
    return state


def damaged(path: Path) -> Iterator[tuple[str, bytes]]:
    """Bytes that are no such file: half of it, nothing, text, and files of others."""
    whole = path.read_bytes()
    yield "half", whole[: len(whole) // 2]
    yield "empty", b""
    yield "text", b"step: 3\n"
    with path.with_name("other").open("wb") as file:
        torch.save([1, 2], file)
    yield "a list", path.with_name("other").read_bytes()
    state = load_checkpoint(path)
    for name, contents in (
        ("an older version", {name: value for name, value in state.items() if name != "format"}),
        ("another version", {**state, "format": "x 1"}),
        ("another key", {**state, "key": "other"}),
    ):
        torch.save(contents, path.with_name("other"))
        yield name, path.with_name("other").read_bytes()
    path.with_name("other").unlink()


def expect_anew(begin: Callable[[Path], Any], path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run that finds any other file says so in one line, and is where one is that found nothing.

    `begin` opens a run in a folder and gives its state.
    """
    fresh = begin(path.parent.with_name("fresh"))
    with pytest.raises(AssertionError):
        expect_equal(begin(path.parent), fresh)  # a whole one is gone on from
    contents = dict(damaged(path))
    for name, state in others(path):
        torch.save(state, path.with_name("other"))
        contents[name] = path.with_name("other").read_bytes()
    assert len(contents) > 12
    for name, data in contents.items():
        path.write_bytes(data)
        caplog.clear()
        with caplog.at_level("WARNING"):
            state = begin(path.parent)
        said = [record.getMessage() for record in caplog.records if RESUME_FILE in record.getMessage()]
        assert len(said) == 1, (name, said)
        assert said[0].endswith("; training starts anew"), name
        assert "\n" not in said[0], name
        expect_equal(state, fresh)
