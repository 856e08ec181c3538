"""Metadata of an exported model file."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..core import Settings
from ..core.system import package_versions


def describe_model(settings: Settings, classes: Sequence[str], run_id: str, weights: str, licence: str) -> dict[str, str]:
    """Return the metadata of an exported file: what a user of the file alone needs. `classes` is a JSON list in output order."""
    names = ("task", "arch", "size", "crop_pct", "resize")
    return {
        **{name: str(getattr(settings, name)) for name in names},
        "strategy": settings.tuning,
        "classes": json.dumps(list(classes)),
        "run": run_id,
        "weights": weights,
        "licence": licence,
        "tlfast": package_versions()["tlfast"],
    }
