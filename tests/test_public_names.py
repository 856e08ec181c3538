"""The names of `tlfast`: documented, free of torch until they are used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import tlfast


def test_every_public_name_has_a_docstring_with_an_example():
    """Errors have one example, in the docstring of their base class."""
    for name in set(tlfast.__all__) - {"__version__"}:
        value = getattr(tlfast, name)
        is_error = isinstance(value, type) and issubclass(value, Exception) and value is not tlfast.TlfastError
        text = inspect.getdoc(value) or ""
        assert len(text) > 20, name
        assert ">>> " in text or is_error, name


def test_no_public_name_hides_a_package():
    packages = {"api", "cli", "commands", "core", "data", "evaluation", "export", "inference", "models", "tasks", "training", "testing"}
    assert not packages & set(tlfast.__all__)


def test_the_import_loads_neither_torch_nor_pandas():
    code = "import sys, tlfast; print(sorted({'torch', 'pandas', 'fastai', 'numpy', 'rich', 'typer'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
