"""Names of the files in the folder of a run, and of the columns in its tables. docs/reference/run-folder.md describes the files."""

from __future__ import annotations

from collections.abc import Iterable

MANIFEST = "run.json"
SEAL = "run.json.sha256"  # in the format of sha256sum
METRICS_FILE, PREDICTIONS_FILE = "metrics.json", "predictions.parquet"  # of the valid split; `name_split_file` gives the names for others
HISTORY_FILE = "history.csv"
IMAGES_FILE = "images.csv"
WEIGHTS_FILE = "model.safetensors"
HEAD_FILE = "head.safetensors"  # of a run on the hub whose WEIGHTS_FILE holds those of a timm model
LEARNER_FILE = "learner.pkl"
ONNX_FILE = "model.onnx"
EXAMPLE_FILE = "example.py"  # of a bundle of `tlfast export --to`, beside ONNX_FILE; a run has no example
PLOTS = "plots"  # folder with:
CALIBRATION_PLOT, MATRIX_PLOT, LOSSES_PLOT = "calibration.png", "confusion_matrix.png", "top_losses.png"
REPORT_FILE, CARD_FILE = "report.html", "MODEL_CARD.md"


def name_split_file(name: str, split: str) -> str:
    """Return the name of a file of results for a split. Those of the valid split have no suffix.

    >>> name_split_file(METRICS_FILE, "test")
    'metrics_test.json'
    """
    stem, dot, suffix = name.partition(".")
    return name if split == "valid" else f"{stem}_{split}{dot}{suffix}"


def probability_column(label: str) -> str:
    """Return the column of a table of predictions with the probability of a class.

    >>> probability_column("happy")
    'p(happy)'
    """
    return f"p({label})"


def find_labels(columns: Iterable[str]) -> list[str]:
    """Return the classes of a table of predictions, in the order of its columns.

    >>> find_labels(["path", "label", "p(happy)", "p(sad)"])
    ['happy', 'sad']
    """
    return [name[2:-1] for name in columns if name.startswith("p(")]
