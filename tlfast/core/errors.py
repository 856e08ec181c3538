"""The errors that reach a user: what was found, and what to type next."""

from __future__ import annotations


class TlfastError(Exception):
    """Something that a user can mend; printed as one line and a hint, without a traceback.

    `message` says what was found, `hint` what to type next. `exit_code` is 1 (the work failed).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple:
        # The default would rebuild from `args` alone and lose the hint when a worker process raises.
        return type(self), (self.message, self.hint)


class UsageError(TlfastError):
    """The command was typed wrongly: an unknown name, an impossible value. Exit code 2."""

    exit_code = 2


class DataError(TlfastError):
    """The images or their labels cannot be used as they are."""


class ImageError(TlfastError):
    """One image cannot be read; the message is the reason alone, the caller names the file."""


class WeightsError(TlfastError):
    """Pretrained weights could not be found, reached or fitted to the network."""


class RunError(TlfastError):
    """A run folder is missing, incomplete or cannot be written."""


class TrainingError(TlfastError):
    """A training cannot go on."""


class Interrupted(TlfastError):
    """A training was stopped by Ctrl-C or kill; the hint is how to go on with it. Exit code 130, a shell's own for that."""

    exit_code = 130


class ExportError(TlfastError):
    """A trained network cannot be written in a form that was asked for, or that form does not answer as the network does."""


def first_line(error: Exception) -> str:
    """Return what an error of another library says, cut to one line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def suggest_name(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return "Did you mean 'x'?" for the closest known name, or ""."""
    import difflib

    # Case is folded for the comparison only: people type "Weeds" for "weeds".
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.6)
    return f"Did you mean '{folded[close[0]]}'?" if close else ""
