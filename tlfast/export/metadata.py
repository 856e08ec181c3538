"""Metadata of an exported model file."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..core.settings import Settings
from ..core.system import package_versions


def describe_model(settings: Settings, classes: Sequence[str], run_id: str, weights: str, licence: str) -> dict[str, str]:
    """Return what an exported file says of itself, so that it needs nothing beside it."""
    chosen = {name: str(getattr(settings, name)) for name in ("task", "arch", "size", "crop_pct", "resize")}
    return {
        **chosen,
        "strategy": settings.tuning,
        "classes": json.dumps(list(classes)),
        "run": run_id,
        "weights": weights,
        "licence": licence,
        "tlfast": package_versions()["tlfast"],
    }
