"""How every command begins and ends: one line on the terminal for what a user can cause, and an exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable

from runtime import interrupt
from runtime.errors import UserError, one_line
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
