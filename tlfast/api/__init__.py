"""The Python API: functions and objects for notebooks and scripts, over the functions of `commands`.

May import every package. Read `training`, then `run` and `dataset`. `tlfast/__init__.py` lists the public names.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports
from ..core.system import hide_known_warnings

if TYPE_CHECKING:
    from .cleaner import Cleaner
    from .comparison import Comparison, compare
    from .datasets import Dataset, Findings, dataset
    from .display import ConfusionMatrix, ImageFrame, Page
    from .run import Run
    from .run_list import pull, runs
    from .scores import Score, Scores
    from .training import TrainingPlan, learner, lr_find, plan, train
    from .upkeep import cache_entries, clear_cache, doctor, get_data, import_data, list_archs, list_tasks

__all__ = [
    "Cleaner",
    "Comparison",
    "ConfusionMatrix",
    "Dataset",
    "Findings",
    "ImageFrame",
    "Page",
    "Run",
    "Score",
    "Scores",
    "TrainingPlan",
    "cache_entries",
    "clear_cache",
    "compare",
    "dataset",
    "doctor",
    "get_data",
    "import_data",
    "learner",
    "list_archs",
    "list_tasks",
    "lr_find",
    "plan",
    "pull",
    "runs",
    "train",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "cleaner": ["Cleaner"],
            "comparison": ["Comparison", "compare"],
            "datasets": ["Dataset", "Findings", "dataset"],
            "display": ["ConfusionMatrix", "ImageFrame", "Page"],
            "run": ["Run"],
            "run_list": ["pull", "runs"],
            "scores": ["Score", "Scores"],
            "training": ["TrainingPlan", "learner", "lr_find", "plan", "train"],
            "upkeep": ["cache_entries", "clear_cache", "doctor", "get_data", "import_data", "list_archs", "list_tasks"],
        },
    )

hide_known_warnings()  # before a module of this package imports torch
