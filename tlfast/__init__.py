"""Rapid prototyping of transfer learning in image classification, on fastai and timm.

from tlfast import load
load("exports/fer").predict("face.jpg").label
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .prediction import Classifier

__all__ = ["load"]


def load(reference: str | Path, out: str = "exports") -> Classifier:
    """Load a trained classifier: a run folder, `exports/<task>` (its latest run), a task's name or a run id."""
    from .machine import hide_known_warnings

    hide_known_warnings()
    from .prediction import load as load_classifier  # torch is imported only where it is used

    return load_classifier(reference, out)
