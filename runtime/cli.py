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
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from runtime.errors import ConfigError

_WORDS = {"true": True, "false": False}


def parse_flags(main: Callable[..., Any], argv: Sequence[str] | None = None) -> Any:
    """Call `main` with its arguments read from flags; `--max_iterations` and `--max-iterations` are the same.

    A bool is a switch, `--track` and `--no_track`, and takes a word as well: `--track False`.
    A parameter that is a dataclass stands for its fields, which are flags like the others: what several commands share.
    If it is one of `runtime.flags.Overrides` it knows which of them were given.
    Raises `ConfigError` naming the flag for an unknown flag or a value of the wrong type; `--help` prints and exits.
    """
    import tyro

    arguments = list(sys.argv[1:] if argv is None else argv)
    flags = _flags_of(main)
    given = _given(arguments, flags)
    asks_for_help = "--help" in arguments or "-h" in arguments
    complaint = io.StringIO()
    try:
        with contextlib.nullcontext() if asks_for_help else contextlib.redirect_stderr(complaint):
            call = tyro.cli(
                _deferred(main, given),
                prog=_command(),
                args=_with_switches(arguments, flags),
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


def _deferred(main: Callable[..., Any], given: Collection[str]) -> Callable[..., Callable[[], Any]]:
    """The same flags, but parsing alone: what `main` prints must not be taken for a complaint about flags."""

    @functools.wraps(main)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        from runtime.flags import Overrides

        def marked(value: Any) -> Any:
            return value.with_given(given) if isinstance(value, Overrides) else value

        return functools.partial(main, *map(marked, args), **{name: marked(value) for name, value in kwargs.items()})

    return bind


@dataclasses.dataclass(frozen=True)
class _Flag:
    """`kind` is its type."""

    name: str
    kind: Any


def _flags_of(main: Callable[..., Any]) -> dict[str, _Flag]:
    """Every flag by its name, and by the others that it goes by."""
    kinds: dict[str, Any] = {}
    hints = typing.get_type_hints(main, include_extras=True)
    for name in inspect.signature(main).parameters:
        kind = hints.get(name)
        is_group = dataclasses.is_dataclass(kind)
        kinds |= typing.get_type_hints(kind, include_extras=True) if is_group else {name: kind}
    flags: dict[str, _Flag] = {}
    for name, kind in kinds.items():
        plain, *notes = typing.get_args(kind) if typing.get_origin(kind) is typing.Annotated else (kind,)
        aliases = [other.removeprefix("--") for note in notes for other in getattr(note, "aliases", None) or ()]
        flags |= dict.fromkeys((name, *aliases), _Flag(name, plain))
    return flags


def _given(arguments: Sequence[str], flags: Mapping[str, _Flag]) -> set[str]:
    """Names of the flags that are given. Raises `ConfigError` for an unknown one, and one given by two names."""
    known = {f"{prefix}{name}" for name in flags for prefix in ("", "no_")} | {"help"}
    names: dict[str, str] = {}
    for argument in arguments:
        written = argument.split("=")[0]
        word = written.removeprefix("--").replace("-", "_")
        if not argument.startswith("--"):
            continue
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
            hint = f"; did you mean --{near[0]}?" if near else "; --help lists the flags"
            raise ConfigError(f"unknown flag {written}{hint}")
        word = word if word in flags else word.removeprefix("no_")
        name = flags[word].name if word in flags else word
        if names.setdefault(name, word) != word:
            raise ConfigError(f"--{names[name]} and --{word} name the same thing: give one of them")
    return set(names)


def _with_switches(arguments: Sequence[str], flags: Mapping[str, _Flag]) -> list[str]:
    """The arguments with every switch as tyro takes it: `--x` or `--no-x`, where it may be None `--x True`."""
    written: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, word = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        negated = name not in flags and name.startswith("no_")
        found = flags.get(name.removeprefix("no_") if negated else name)
        if not flag.startswith("--") or found is None or found.kind not in (bool, bool | None):
            written.append(argument)
            continue
        if not equals and rest and rest[0].lower() in _WORDS:
            word = rest.pop(0)
        value = _WORDS.get(word.lower()) if equals or word else True
        if value is None:
            raise ConfigError(
                f"{flag} {word!r}: expected a switch, --{found.name} or --no_{found.name}, or True or False"
            )
        value = value is not negated
        if found.kind is bool:
            written.append(f"--{found.name}" if value else f"--no-{found.name}")
        else:
            written += [f"--{found.name}", str(value)]
    return written


def _one_line(complaint: str) -> str:
    """What tyro prints about wrong flags, without its frame, on one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", complaint)
    plain = re.sub(r"[╭╮╰╯│─]+", " ", plain)
    return " ".join(plain.split())
