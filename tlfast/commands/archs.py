"""`tlfast archs`: the backbones that `--arch` accepts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..core import OnEvent, ignore_event
from ..models import Backbone, describe_backbones, list_at_hand, list_names, match_names


@dataclass(frozen=True)
class ArchsResult:
    """Result of `tlfast archs`.

    Attributes:
        backbones: the matching ones, by name.
        others: number of backbones that were not asked for.
    """

    backbones: list[Backbone]
    others: int

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return {"backbones": [asdict(backbone) for backbone in self.backbones], "others": self.others}


def search_archs(pattern: str = "", on_event: OnEvent = ignore_event) -> ArchsResult:
    """Return the backbones whose names match a pattern; without a pattern those whose pretrained weights need no download.

    Raises UsageError if no name matches.
    """
    names = list_names()
    chosen = match_names(pattern, names) if pattern else list_at_hand(names)
    return ArchsResult(list(describe_backbones(chosen, on_event)), len(names) - len(chosen))
