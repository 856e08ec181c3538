"""The names of `tlfast`: documented, free of torch until they are used."""

from __future__ import annotations

import subprocess
import sys

import tlfast


def test_every_public_function_and_class_has_a_docstring():
    for name in set(tlfast.__all__) - {"__version__"}:
        assert len((getattr(tlfast, name).__doc__ or "").strip()) > 20, name


def test_no_public_name_hides_a_package():
    packages = {"api", "cli", "commands", "core", "data", "evaluation", "export", "inference", "models", "tasks", "training", "testing"}
    assert not packages & set(tlfast.__all__)


def test_the_import_loads_neither_torch_nor_pandas():
    code = "import sys, tlfast; print(sorted({'torch', 'pandas', 'fastai', 'numpy', 'rich', 'typer'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
