"""A note on settings that have no effect. Shared by the commands `train`, `lr-find` and `compare`."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import Note, OnEvent
from ..core.settings import flag_name


def note_unused(names: Sequence[str], on_event: OnEvent) -> None:
    """Send a note that names settings without effect, such as those that `find_unused` returns; none without names."""
    if names:
        on_event(Note("settings", f"without effect here: {', '.join(map(flag_name, names))}"))
