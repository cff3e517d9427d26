"""Flags of an entry point from the signature of its function."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from runtime.errors import ConfigError


def parse_flags(main: Callable[..., Any], argv: Sequence[str] | None = None) -> Any:
    """Call `main` with its arguments read from flags; `--max_iterations` and `--max-iterations` are the same.

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
    try:
        return tyro.cli(
            main, args=arguments, use_underscores=True, console_outputs="--help" in arguments or "-h" in arguments
        )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(_complaint(main, arguments)) from None


def _flags_of(main: Callable[..., Any]) -> set[str]:
    import inspect

    names = set()
    for name in inspect.signature(main).parameters:
        names |= {f"__{name}", f"__no_{name}"}
    return names


def _complaint(main: Callable[..., Any], arguments: Sequence[str]) -> str:
    """What tyro has to say about wrong flags, on one line."""
    import contextlib
    import io
    import re

    import tyro

    text = io.StringIO()
    with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(main, args=list(arguments), use_underscores=True)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())
    plain = re.sub(r"[╭╮╰╯│─]+", " ", plain)
    return " ".join(plain.split())
