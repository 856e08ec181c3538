"""Rapid prototyping of transfer learning in image classification, on fastai and timm.

>>> run = tlfast.train("photos/", depth="auto", minutes=10)  # doctest: +SKIP
>>> run.predict("new.jpg").label  # doctest: +SKIP
'Lantana'
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, overload

from .core.lazy import lazy_exports

if TYPE_CHECKING:
    from pathlib import Path

    from fastai.learner import Learner

    from .api import (
        Cleaner,
        Comparison,
        Dataset,
        Run,
        TrainingPlan,
        cache_entries,
        clear_cache,
        compare,
        dataset,
        doctor,
        get_data,
        import_data,
        learner,
        list_archs,
        list_tasks,
        lr_find,
        plan,
        pull,
        runs,
        train,
    )
    from .core.errors import DataError, ExportError, ImageError, Interrupted, RunError, TlfastError, TrainingError, UsageError, WeightsError
    from .data.task import Source, Task
    from .data.types import Row
    from .inference.classifier import Classifier
    from .inference.types import Prediction

    __version__: str

__all__ = [
    "Classifier",
    "Cleaner",
    "Comparison",
    "DataError",
    "Dataset",
    "ExportError",
    "ImageError",
    "Interrupted",
    "Prediction",
    "Row",
    "Run",
    "RunError",
    "Source",
    "Task",
    "TlfastError",
    "TrainingError",
    "TrainingPlan",
    "UsageError",
    "WeightsError",
    "__version__",
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
    "load",
    "lr_find",
    "plan",
    "pull",
    "runs",
    "train",
]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # must be set before onnxruntime is imported

_import_export = lazy_exports(
    __name__,
    {
        "api": [
            "Cleaner",
            "Comparison",
            "Dataset",
            "Run",
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
        ],
        "core.errors": ["DataError", "ExportError", "ImageError", "Interrupted", "RunError", "TlfastError", "TrainingError", "UsageError", "WeightsError"],
        "data.task": ["Source", "Task"],
        "data.types": ["Row"],
        "inference.classifier": ["Classifier"],
        "inference.types": ["Prediction"],
    },
)


if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("tlfast")
        if name in ("api", "testing"):
            from importlib import import_module

            return import_module(f".{name}", __name__)
        return _import_export(name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


@overload
def load(reference: str | Path, out: str = ..., *, verify: bool = ..., backend: Literal["onnx"] = ..., trust: bool = ..., tta: str = ...) -> Classifier: ...


@overload
def load(reference: str | Path, out: str = ..., *, verify: bool = ..., backend: Literal["fastai"], trust: bool = ...) -> Learner: ...


def load(
    reference: str | Path, out: str = "exports", *, verify: bool = True, backend: Literal["onnx", "fastai"] = "onnx", trust: bool = False, tta: str = ""
) -> Classifier | Learner:
    """Load a trained classifier.

    `reference` is a run folder, `exports/<task>` or the name of a task (its latest run), a run id, a bundle folder, a `model.onnx` file, or
    `hf://user/name` or `hf://user/name@revision` on the Hugging Face hub. `out` is the folder with the runs. Files that were changed after the export
    are refused, unless `verify=False`. `tta` is the test-time augmentation, "flip" or "crops", of a file that `tlfast export --tta` has written.

    Returns a `Classifier`, which needs no torch; with `backend="fastai"` the fastai Learner. The Learner is a pickle file, and loading it
    executes the code inside, so it needs `trust=True`. Raises TlfastError.

    >>> load("exports/fer").predict("face.jpg").label  # doctest: +SKIP
    'happy'
    """
    from .api.keywords import with_keywords_in_messages

    return with_keywords_in_messages(_load)(reference, out, verify=verify, backend=backend, trust=trust, tta=tta)


def _load(reference: str | Path, out: str, *, verify: bool, backend: str, trust: bool, tta: str) -> Classifier | Learner:
    from .core import UsageError
    from .inference.classifier import load as load_classifier

    if not isinstance(reference, (str, os.PathLike)):
        raise UsageError(f"{reference!r} is not the name or path of a run", 'Give one, such as tlfast.load("exports/fer")')
    for name, value in (("out", out), ("tta", tta)):
        if not isinstance(value, (str, os.PathLike)):
            raise UsageError(f"{name}={value!r} is not a text", 'Such as out="exports", tta="flip"')
    out = os.path.expanduser(out)
    if tta and backend == "fastai":
        raise UsageError(f'tta="{tta}" is for backend="onnx": a Learner has test-time augmentation of its own', "Leave out tta, and call learn.tta()")
    if backend == "onnx":
        return load_classifier(reference, out, verify, tta)
    from .core import runs
    from .core.system import hide_known_warnings

    if backend != "fastai":
        raise UsageError(f"unknown backend '{backend}'", 'Use backend="onnx" or backend="fastai"')

    hide_known_warnings()
    from .export.fastai_learner import open_learner

    return open_learner(runs.find(str(reference), out, verify), trust)
