"""The command line: Typer commands that parse arguments, call a function of `commands` and render the result.

May import every other package; the only one that imports rich. Read `app`, then `registration`, `options` and `console`.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line. The entry point of the console script."""
    from .app import main as run

    run()


__all__ = ["main"]
