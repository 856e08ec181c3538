"""The command line: Typer commands, each of which parses, makes one library call and shows the result.

May import everything below; the only package that imports rich. Read `app` first, then `options` and `console`.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; what the console script calls."""
    from .app import main as run

    run()


__all__ = ["main"]
