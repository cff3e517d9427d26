"""What a user can cause: one line on the terminal, a non-zero exit, no traceback."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sys
from collections.abc import Callable, Sequence

from runtime import interrupt
from runtime.program import DISTRIBUTION, EXTRAS

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_USERS_TO_MEND = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
)


class UserError(Exception):
    """A fault that the user can mend. The message names the file, key or flag, the value and what is expected."""


class DataError(UserError):
    """A data file is missing, damaged or does not have the expected arrays."""


class ConfigError(UserError):
    """A configuration file or flag has an unknown key or a value out of range."""


class TaskError(UserError):
    """A task, axis element or split does not exist."""


class StateError(UserError):
    """A results folder belongs to another configuration, or another process holds it."""


class JobError(UserError):
    """A job failed for good."""


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


def one_line(error: BaseException) -> str:
    """The error's message with line breaks folded into spaces."""
    return " ".join(str(error).split()) or type(error).__name__


def run_main(main: Callable[[], int | None]) -> None:
    """Call `main` and leave the process with its status; print a `UserError` or an OS limit as one line.

    A full disk, a missing permission, a read-only file system and a file in a folder's place are the user's to mend as
    well, and so is a package that only an extra of the distribution brings; every other exception is a fault of the
    program and keeps its traceback. SIGTERM and SIGHUP are like Ctrl-C.
    """
    try:
        with interrupt.like_ctrl_c():
            status = main() or 0
    except UserError as error:
        _say(f"error: {one_line(error)}")
        status = EXIT_USER_ERROR
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        _say(f"error: {error.name} is not installed: pip install '{DISTRIBUTION}[{EXTRAS[error.name]}]' brings it")
        status = EXIT_USER_ERROR
    except interrupt.Interrupted:
        _say("saved and stopped: the same command continues")
        status = EXIT_INTERRUPTED
    except interrupt.Stopped as error:
        _say(f"{error}: the same command continues where this stopped")
        status = 128 + error.signum
    except KeyboardInterrupt:
        _say("interrupted: the same command continues where this stopped")
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of the output (`| head`) has gone; nothing more can be said to it, not at the flush on exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno not in _USERS_TO_MEND:
            raise
        where = f" ({error.filename})" if error.filename else ""
        _say(f"error: {' '.join(str(error.strerror).split())}{where}")
        status = EXIT_USER_ERROR
    sys.exit(status)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may have gone
        print(line, file=sys.stderr, flush=True)
