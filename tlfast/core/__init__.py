"""What every other package uses: settings, errors, events, run folders, the cache and facts of the machine.

Imports the standard library, and NumPy inside functions; nothing of tlfast. Read `settings`, `errors` and `events`, then `runs` and `journal`.
"""

from typing import TYPE_CHECKING

from .lazy import lazy_exports

if TYPE_CHECKING:
    from .errors import DataError, ExportError, ImageError, Interrupted, RunError, TlfastError, TrainingError, UsageError, WeightsError
    from .events import Event, Note, OnEvent, Progress, ignore_event
    from .journal import Journal
    from .runs import RunRecord
    from .settings import AugmentationSettings, DataSettings, Declaration, ModelSettings, RunSettings, Settings, TrainingSettings

__all__ = [
    "AugmentationSettings",
    "DataError",
    "DataSettings",
    "Declaration",
    "Event",
    "ExportError",
    "ImageError",
    "Interrupted",
    "Journal",
    "ModelSettings",
    "Note",
    "OnEvent",
    "Progress",
    "RunError",
    "RunRecord",
    "RunSettings",
    "Settings",
    "TlfastError",
    "TrainingError",
    "TrainingSettings",
    "UsageError",
    "WeightsError",
    "ignore_event",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "errors": ["DataError", "ExportError", "ImageError", "Interrupted", "RunError", "TlfastError", "TrainingError", "UsageError", "WeightsError"],
            "events": ["Event", "Note", "OnEvent", "Progress", "ignore_event"],
            "journal": ["Journal"],
            "runs": ["RunRecord"],
            "settings": ["AugmentationSettings", "DataSettings", "Declaration", "ModelSettings", "RunSettings", "Settings", "TrainingSettings"],
        },
    )
