"""The names of `tlfast`: documented, free of torch until they are used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pkgutil import iter_modules

import pytest

import tlfast
import tlfast.api


def test_every_public_name_has_a_docstring_with_an_example():
    """Errors have one example, in the docstring of their base class."""
    for name in set(tlfast.__all__) - {"__version__"}:
        value = getattr(tlfast, name)
        is_error = isinstance(value, type) and issubclass(value, Exception) and value is not tlfast.TlfastError
        text = inspect.getdoc(value) or ""
        assert len(text) > 20, name
        assert ">>> " in text or is_error, name


@pytest.mark.parametrize("package", [tlfast, tlfast.api], ids=["tlfast", "tlfast.api"])
def test_no_public_name_is_that_of_a_module(package):
    """Once a module is imported, it is an attribute of its package and hides a lazy name."""
    modules = {module.name for module in iter_modules(package.__path__)}
    assert "training" in modules
    assert not modules & set(package.__all__)


def test_a_run_is_opened_and_predicts_without_torch(run, pictures):
    code = f"""
import sys, tlfast
run = tlfast.Run({str(run.folder)!r})
run.metrics, run.predictions, run.predict({str(pictures)!r})
print(sorted({{'torch', 'fastai', 'timm', 'matplotlib'}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_import_loads_neither_torch_nor_pandas():
    code = "import sys, tlfast; print(sorted({'torch', 'pandas', 'fastai', 'numpy', 'rich', 'typer'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_names_are_completed_and_packages_imported():
    assert set(tlfast.__all__) <= set(dir(tlfast))
    assert tlfast.api.Score.__name__ == "Score" and tlfast.testing.TINY
