"""Records of a run: images, history, metrics and `run.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..core import Settings
from ..core.files import write_csv, write_json
from ..core.run_files import HISTORY_FILE, IMAGES_FILE, METRICS_FILE
from ..core.runs import seal
from ..core.system import package_versions
from ..data import Preprocessing, Row
from ..evaluation import Evaluation
from .types import EpochRow, Phase


def save_records(folder: Path, manifest: dict[str, Any], rows: Sequence[Row], phases: Sequence[Phase], evaluation: Evaluation) -> None:
    """Write `images.csv` (an input for `--data`), `history.csv`, `metrics.json` and, last, `run.json` with the SHA-256 of all files."""
    write_csv(folder / IMAGES_FILE, rows)
    write_csv(folder / HISTORY_FILE, [row for phase in phases for row in phase.epochs], [f.name for f in fields(EpochRow)])
    write_json(folder / METRICS_FILE, evaluation.to_dict())
    seal(folder, manifest)


def build_manifest(settings: Settings, classes: Sequence[str], preprocessing: Preprocessing, **facts: Any) -> dict[str, Any]:
    """Return the content of `run.json`: everything needed to use and to repeat the run. `facts` are further entries."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": settings.to_dict(),
        "classes": list(classes),
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "versions": package_versions(),
        **facts,
    }
