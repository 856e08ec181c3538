"""The command line: Typer commands that parse arguments, call a function of `commands` and render the result.

May import every other package; the only one that imports rich. Read `app`, then `registration`, `options` and `console`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. The entry point of the console script."""
    try:
        from .app import main as run

        run()
    except KeyboardInterrupt:  # before a command has started; later ones are handled with the other errors of a command
        from ..core import Interrupted

        print("error: interrupted", file=sys.stderr)
        sys.exit(Interrupted.exit_code)


__all__ = ["main"]
