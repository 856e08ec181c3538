from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from tlfast.api import progress
from tlfast.core import Note, Progress, ignore_event
from tlfast.training import EpochEnd, EpochRow


class Handle:
    """Stands in for a display handle of IPython."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, html: str) -> None:
        self.shown.append(html)


@pytest.fixture
def handle(monkeypatch) -> Handle:
    """A notebook with one output."""
    made = Handle()
    display = SimpleNamespace(HTML=lambda text: text, display=lambda html, display_id: made)
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return made


def test_a_notebook_shows_bar_notes_and_epochs(handle):
    with progress.show_progress() as on_event:
        on_event(Progress("backbone: <features>", 10, 40))
        assert 'backbone: &lt;features&gt; <progress value="10" max="40">' in handle.shown[-1]
        on_event(Note("data", "skipped <x>.png"))
        on_event(EpochEnd("head", EpochRow("head", 1, 0.5, 0.25, 0.9, 0.8, 0.7, 1.5)))
    assert "<progress" not in handle.shown[-1]
    assert "skipped &lt;x&gt;.png" in handle.shown[-1]
    assert "<td>0.25</td>" in handle.shown[-1]


def test_a_notebook_is_drawn_a_few_times_a_second_only(handle):
    with progress.show_progress() as on_event:
        for done in range(1000):
            on_event(Progress("training", done, 1000))
    assert len(handle.shown) < 50


def test_quiet_hides_everything_and_piped_output_has_notes_only(handle, monkeypatch, caplog):
    with progress.show_progress(quiet=True) as on_event:
        assert on_event is ignore_event
    monkeypatch.delitem(sys.modules, "IPython")
    with progress.show_progress() as on_event:
        on_event(Progress("training", 1, 2))
        on_event(Note("data", "skipped x.png"))
    assert handle.shown == []
    assert caplog.messages == ["data: skipped x.png"]


def test_a_finished_step_leaves_no_empty_output(handle):
    with progress.show_progress() as on_event:
        on_event(Progress("exporting", 1, 2))
    assert handle.shown[-1] == ""
