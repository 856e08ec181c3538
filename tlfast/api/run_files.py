"""Read the results in the folder of a run. What is missing or damaged is a RunError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ..core import RunError, RunRecord
from ..core import runs as records
from ..core.errors import first_line
from ..core.run_files import HISTORY_FILE, METRICS_FILE, PREDICTIONS_FILE, name_split_file
from ..core.runs import check_split
from .display import ImageFrame

DATA = 'data="photos/"'  # example in errors


def read_history(run: RunRecord) -> pd.DataFrame:
    """Return the epochs. Raises RunError."""
    path = run.folder / HISTORY_FILE
    with _reading(path):
        return pd.read_csv(path)


def read_metrics(run: RunRecord, split: str) -> dict[str, Any]:
    """Return the content of `metrics.json`, or of that of another split. Raises RunError."""
    with _reading(run.folder / name_split_file(METRICS_FILE, split), split):
        return records.read_metrics(run.folder, split)


def read_predictions(run: RunRecord, split: str) -> ImageFrame:
    """Return the predictions for a split. Raises RunError, or UsageError for an unknown split."""
    check_split(split)
    path = run.folder / name_split_file(PREDICTIONS_FILE, split)
    if split == "valid" and not path.is_file():
        records.require_images(run, f"Evaluate it on your images: run.evaluate({DATA})")
    with _reading(path, split):
        return ImageFrame(pd.read_parquet(path))


@contextmanager
def _reading(path: Path, split: str = "valid") -> Iterator[None]:
    """Turn the errors of a reader into a RunError that says what to do."""
    hint = "Copy the run again from where it was trained" if split == "valid" else f'Call run.evaluate(split="{split}") first'
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"{path.parent} has no {path.name}", hint) from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {first_line(error)}", hint) from None
