"""The notebooks of the documentation run from top to bottom without warnings."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.paths import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def execute(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str] | None = None, end: str = "") -> nbformat.NotebookNode:
    """Run a notebook in a folder, up to the heading `end`, after replacements in its code."""
    notebook = nbformat.read(path, as_version=4)
    if end:
        notebook.cells = notebook.cells[: next(n for n, cell in enumerate(notebook.cells) if cell.source.startswith(end))]
    for old, new in (changes or {}).items():
        assert any(old in cell.source for cell in notebook.cells), old
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
    monkeypatch.setenv("IPYTHONDIR", str(folder / ".ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    return [output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs if output.get("name") == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_without_warnings(path, tmp_path, monkeypatch):
    notebook = execute(path, tmp_path, monkeypatch)
    assert outputs(notebook, "stderr") == []
    assert sum(bool(cell.outputs) for cell in notebook.cells if cell.cell_type == "code") >= 20


@pytest.mark.real
def test_the_notebook_runs_on_plants(shared, tmp_path, monkeypatch):
    changes = {
        'tlfast.dataset("digits", limit=150)': f'tlfast.dataset("{shared}/data/seedlings.zip", limit=100)',
        'tlfast.learner("digits", full=True)': f'tlfast.learner("{shared}/data/seedlings.zip", full=True, limit=100, **settings)',
        '"tf_efficientnet_lite0", "size": 48': f'"mobilenetv2_100", "weights": "{shared}/weights/mobilenetv2_100.safetensors", "size": 48',
    }
    notebook = execute(ROOT / "docs" / "notebooks" / "first_classifier.ipynb", tmp_path, monkeypatch, changes, "## Comparison")
    assert outputs(notebook, "stderr") == []
