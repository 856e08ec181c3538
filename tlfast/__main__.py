"""`python -m tlfast`: the command line."""

from .cli.app import main

main()
