"""A note on settings that have no effect. Shared by the commands `train` and `lr-find`."""

from __future__ import annotations

from collections.abc import Collection

from ..core import Note, OnEvent, Settings
from ..core.settings import find_unused, flag_name


def note_unused(settings: Settings, on_event: OnEvent, also: Collection[str] = ()) -> None:
    """Send a note that names the settings without effect: those of the strategy, and `also`."""
    if unused := find_unused(settings, also):
        on_event(Note("settings", f"without effect here: {', '.join(map(flag_name, unused))}"))
