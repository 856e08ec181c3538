"""The command line: Typer commands that parse arguments, call a function of `commands` and render the result.

May import every other package; the only one that imports rich. Read `app`, then `registration`, `options` and `console`.
"""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Run the command line. The entry point of the console script."""
    with open(os.devnull, "w") as nowhere:
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere  # None if the shell has closed it, as by >&-
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files that its encoding does not have, as stderr does
        try:
            from .app import main as run

            run()
        except KeyboardInterrupt:  # before a command has started; later ones are handled with the other errors of a command
            from ..core import Interrupted

            print("error: interrupted", file=sys.stderr)
            sys.exit(Interrupted.exit_code)
        except OSError as error:  # of the output, such as on a full disk; those of commands are errors of the command
            if error.errno is None or error.filename:
                raise
            print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
            os.dup2(nowhere.fileno(), 1)  # what is still buffered cannot be written at exit either
            sys.exit(1)


__all__ = ["main"]
