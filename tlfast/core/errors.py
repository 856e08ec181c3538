"""Exceptions with a message for the user: what was found, and what to type next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MAX_LINE, MIN_SENTENCES = 160, 40  # characters of the text of another exception in a message
MAX_LISTED = 10  # names in a message


class TlfastError(Exception):
    """Base class: an error that the user can correct. The command line prints it without a traceback.

    `message` says what was found, `hint` what to type next. `exit_code` is the exit code of the command: 1 for failed work.

    >>> str(TlfastError("no images in photos", "Name another folder"))
    'no images in photos'
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint and hasattr(self, "add_note"):  # Python 3.11
            self.add_note(hint)

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Replace the message and the hint by `change` of them."""
        self.message, self.hint = change(self.message), change(self.hint)
        self.args = (self.message,)
        if getattr(self, "__notes__", None):
            self.__notes__ = [self.hint]

    def _render_traceback_(self) -> list[str]:
        """Return what IPython and Jupyter show in place of a traceback."""
        return [f"{type(self).__name__}: {self.message}", *([f"  {self.hint}"] if self.hint else [])]

    def __reduce__(self) -> tuple[Any, ...]:
        # The default rebuilds from `args` alone and loses the hint of an error raised in a worker process.
        return type(self), (self.message, self.hint)


class UsageError(TlfastError):
    """Invalid command: an unknown name or an impossible value. Exit code 2."""

    exit_code = 2


class DataError(TlfastError):
    """Images or labels that cannot be used."""


class ImageError(TlfastError):
    """One unreadable image. The message gives the reason only; the caller adds the file name."""


class WeightsError(TlfastError):
    """Pretrained weights that are missing, out of reach, or do not fit the network."""


class RunError(TlfastError):
    """A run folder that is missing, damaged or not writable."""


class TrainingError(TlfastError):
    """A training that cannot continue."""


class Interrupted(TlfastError):
    """A training stopped by Ctrl-C or SIGTERM. The hint is the command that resumes it. Exit code 130, as in a shell."""

    exit_code = 130


class ExportError(TlfastError):
    """An export that cannot be written, or whose predictions differ from those of the network."""


def first_line(error: Exception) -> str:
    """Return the first line of an exception's text; the name of its class if the text is empty.

    A line of more than 160 characters ends after its last sentence within them, or at the 160th.

    >>> first_line(ValueError("bad value"))
    'bad value'
    >>> first_line(ValueError("The file is cut off: no directory was found. " + 50 * "Perhaps. "))[:50]
    'The file is cut off: no directory was found. Perha'
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if len(line) <= MAX_LINE:
        return line
    end = line.rfind(". ", MIN_SENTENCES, MAX_LINE)
    return line[: end if end > 0 else MAX_LINE]


def suggest_name(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return "Did you mean 'x'?" with the closest known name, or "" if none is close. Case is ignored.

    >>> suggest_name("Weed", ["fer", "weeds"])
    "Did you mean 'weeds'?"
    """
    import difflib

    lowercase = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(lowercase), n=1, cutoff=0.6)
    return f"Did you mean '{lowercase[close[0]]}'?" if close else ""


def list_some(names: Sequence[str], most: int = MAX_LISTED, rest: str = "more") -> str:
    """Return the first `most` names, and the number of the others, which are called `rest`.

    >>> list_some(["ant", "bee", "cat"], 2)
    'ant, bee and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} {rest}" if len(names) > most else "")


def make_printable(text: str) -> str:
    """Return a text, such as the name of a file, without characters that would move the cursor or change colours: they become escape sequences.

    >>> make_printable("a\\x1b[31mb\\n.jpg")
    'a\\\\x1b[31mb\\\\n.jpg'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
