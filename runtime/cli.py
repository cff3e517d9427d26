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

_WORDS = {"true": True, "false": False}


def parse_flags(main: Callable[..., Any], argv: Sequence[str] | None = None) -> Any:
    """Call `main` with its arguments read from flags; `--max_iterations` and `--max-iterations` are the same.

    A bool is a switch, `--track` and `--no_track`, and takes a word as well: `--track False`.
    A parameter that is a dataclass stands for its fields, which are flags like the others: what several commands share.
    Raises `ConfigError` naming the flag for an unknown flag or a value of the wrong type; `--help` prints and exits.
    """
    import tyro

    arguments = list(sys.argv[1:] if argv is None else argv)
    kinds = _kinds_of(main)
    known = {f"__{prefix}{name}" for name in kinds for prefix in ("", "no_")}
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
                args=_with_switches(arguments, kinds),
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


def _kinds_of(main: Callable[..., Any]) -> dict[str, Any]:
    """Name of each flag -> its type."""
    kinds: dict[str, Any] = {}
    hints = typing.get_type_hints(main)
    for name in inspect.signature(main).parameters:
        kind = hints.get(name)
        kinds |= typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {name: kind}
    return kinds


def _with_switches(arguments: Sequence[str], kinds: dict[str, Any]) -> list[str]:
    """The arguments with every switch as tyro takes it: `--x` or `--no-x`, where it may be None `--x True`."""
    written: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, word = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        negated = name not in kinds and name.startswith("no_")
        name = name.removeprefix("no_") if negated else name
        kind = kinds.get(name)
        if not flag.startswith("--") or kind not in (bool, bool | None):
            written.append(argument)
            continue
        if not equals and rest and rest[0].lower() in _WORDS:
            word = rest.pop(0)
        value = _WORDS.get(word.lower()) if equals or word else True
        if value is None:
            raise ConfigError(f"{flag} {word!r}: expected a switch, --{name} or --no_{name}, or True or False")
        value = value is not negated
        if kind is bool:
            written.append(f"--{name}" if value else f"--no-{name}")
        else:
            written += [f"--{name}", str(value)]
    return written


def _one_line(complaint: str) -> str:
    """What tyro prints about wrong flags, without its frame, on one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", complaint)
    plain = re.sub(r"[╭╮╰╯│─]+", " ", plain)
    return " ".join(plain.split())
