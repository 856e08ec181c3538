"""TODO: docstring."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..core.events import OnEvent, ignore_event
from ..core.files import write_json
from ..core.runs import Run, record_test_use
from ..evaluation import plots
from ..evaluation.calibration import apply_temperature
from ..evaluation.predictions import save_predictions
from ..evaluation.types import Evaluation
from . import loaded_run


@dataclass(frozen=True)
class EvaluateResult:
    """What `tlfast evaluate` found, and the files that it wrote into the run (of the test part only; a training writes those of the valid part)."""

    run: str
    evaluation: Evaluation
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "evaluation": self.evaluation.to_dict()}


def evaluate_run(run: Run, split: str = "valid", data: str = "", on_event: OnEvent = ignore_event) -> EvaluateResult:
    """Judge a run on its valid part, or on its test part, which is written into the run and recorded there.

    Raises RunError, or DataError where the part is empty or the run's classes are not the data's.
    """
    model = loaded_run.load_run(run, data, on_event)
    predictions = loaded_run.predict_split(model, split, on_event)
    result = loaded_run.evaluate_split(model, predictions, split)
    if split == "valid":
        return EvaluateResult(run.id, result, [])
    written = [save_predictions(run.folder, predictions, split, apply_temperature(predictions.log_probabilities, model.temperature))]
    written.append(run.folder / f"metrics_{split}.json")
    write_json(written[-1], result.to_dict())
    record_test_use(run, "evaluate", {"images": len(predictions.rows), "accuracy": result.accuracy}, *(path.name for path in written))
    picture = plots.plot_calibration(result, run.folder / "plots" / f"calibration_{split}.png", f"{run.task}: {run.id}, {split} part")
    return EvaluateResult(run.id, result, [str(path) for path in (*written, picture)])
