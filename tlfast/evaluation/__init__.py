"""Evaluation of classifiers: metrics with bootstrap intervals, calibration, comparisons, activation maps, figures and reports.

May import `models`, `tasks`, `data` and `core`, besides scikit-learn, SciPy and matplotlib. Read `types`, then `evaluator` and `comparison`. Shapes in
docstrings: n images, b images of a batch, c classes, s trainings, h and w pixels.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports

if TYPE_CHECKING:
    from .calibration import apply_temperature, fit_temperature
    from .cam import compute_maps, render_maps
    from .comparison import Arm, CompareResult, Design
    from .confusion import most_confused
    from .evaluator import evaluate
    from .predictions import predict_loader, save_predictions
    from .transferability import RankedBackbone, log_evidence
    from .types import Calibration, ClassScore, ConfusedPair, Coverage, Evaluation, Predictions, ReliabilityBin, TopLoss

__all__ = [
    "Arm",
    "Calibration",
    "ClassScore",
    "CompareResult",
    "ConfusedPair",
    "Coverage",
    "Design",
    "Evaluation",
    "Predictions",
    "RankedBackbone",
    "ReliabilityBin",
    "TopLoss",
    "apply_temperature",
    "compute_maps",
    "evaluate",
    "fit_temperature",
    "log_evidence",
    "most_confused",
    "predict_loader",
    "render_maps",
    "save_predictions",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "calibration": ["apply_temperature", "fit_temperature"],
            "cam": ["compute_maps", "render_maps"],
            "comparison": ["Arm", "CompareResult", "Design"],
            "confusion": ["most_confused"],
            "evaluator": ["evaluate"],
            "predictions": ["predict_loader", "save_predictions"],
            "transferability": ["RankedBackbone", "log_evidence"],
            "types": ["Calibration", "ClassScore", "ConfusedPair", "Coverage", "Evaluation", "Predictions", "ReliabilityBin", "TopLoss"],
        },
    )
