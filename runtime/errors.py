"""What a user can cause: errors that are told in one line."""

from __future__ import annotations


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


def one_line(error: BaseException) -> str:
    """The error's message with line breaks folded into spaces."""
    return " ".join(str(error).split()) or type(error).__name__
