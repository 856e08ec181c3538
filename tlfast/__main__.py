"""`python -m tlfast`: the command line."""

from .cli import main

main()
