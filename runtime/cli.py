"""Flags of an entry point from the signature of its function."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from runtime.errors import ConfigError


def parse_flags(main: Callable[..., Any], argv: Sequence[str] | None = None) -> Any:
    """Call `main` with its arguments read from flags; `--max_iterations` and `--max-iterations` are the same.

    A parameter that is a dataclass stands for its fields, which are flags like the others: what several commands share.
    Raises `ConfigError` naming the flag for an unknown flag or a value of the wrong type; `--help` prints and exits.
    """
    import tyro

    arguments = list(sys.argv[1:] if argv is None else argv)
    known = _flags_of(main)
    for argument in arguments:
        flag = argument.split("=")[0].replace("-", "_")
        if argument.startswith("--") and flag not in known and flag != "__help":
            near = difflib.get_close_matches(flag, known, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0].replace('__', '--', 1)}?" if near else "; --help lists the flags"
            raise ConfigError(f"unknown flag {argument.split('=')[0]}{hint}")
    asks_for_help = "--help" in arguments or "-h" in arguments
    complaint = io.StringIO()
    try:
        with contextlib.nullcontext() if asks_for_help else contextlib.redirect_stderr(complaint):
            call = tyro.cli(
                _deferred(main),
                prog=_command(),
                args=arguments,
                use_underscores=True,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(_one_line(complaint.getvalue())) from None
    return call()


def _command() -> str | None:
    """How this process was started, for `--help`: `python -m scripts.x`. None: by a file."""
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name}" if spec else None


def _deferred(main: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """The same flags, but parsing alone: what `main` prints must not be taken for a complaint about flags."""

    @functools.wraps(main)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(main, *args, **kwargs)

    return bind


def _flags_of(main: Callable[..., Any]) -> set[str]:
    names = set()
    hints = typing.get_type_hints(main)
    for name in inspect.signature(main).parameters:
        kind = hints.get(name)
        flags = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else [name]
        names |= {f"__{prefix}{flag}" for flag in flags for prefix in ("", "no_")}
    return names


def _one_line(complaint: str) -> str:
    """What tyro prints about wrong flags, without its frame, on one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", complaint)
    plain = re.sub(r"[╭╮╰╯│─]+", " ", plain)
    return " ".join(plain.split())
