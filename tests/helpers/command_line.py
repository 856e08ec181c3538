"""Commands of the command line, run in this process or in another one."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import typer.testing
from typer.testing import CliRunner

typer.testing._get_command = functools.cache(typer.testing._get_command)  # which reads the signatures of all commands
# The smallest network that trains: flags of `tlfast train`.
TINY = ["--arch", "test_resnet", "--weights", "none", "--size", "32", "--bs", "8", "--lr", "3e-3"]


@dataclass(frozen=True)
class Outcome:
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def invoke(*arguments: object) -> Outcome:
    """Run a command in this process: `invoke("train", "digits")`."""
    from tlfast.cli.app import app

    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment})
