"""`tlfast evaluate`: how well a run does on one part of its data, how sure that is, and whether its probabilities can be believed."""

from __future__ import annotations

from . import exporting, plotting, reopening
from .calibration import tempered
from .core.events import OnEvent, ignore_event
from .core.files import write_json
from .core.runs import Run, record_test_use
from .outcomes import EvaluateResult


def evaluate(run: Run, split: str = "valid", data: str = "", on_event: OnEvent = ignore_event) -> EvaluateResult:
    """Judge a run on its valid part, or on its test part, which is written into the run and recorded there.

    Raises RunError, or DataError where the part is empty or the run's classes are not the data's.
    """
    model = reopening.reopen(run, data, on_event)
    predictions = reopening.predictions(model, split, on_event)
    result = reopening.judged(model, predictions, split)
    if split == "valid":
        return EvaluateResult(run.id, result, [])
    written = [exporting.save_predictions(run.folder, predictions, split, tempered(predictions.log_probabilities, model.temperature))]
    written.append(run.folder / f"metrics_{split}.json")
    write_json(written[-1], result.to_dict())
    record_test_use(run, "evaluate", {"images": len(predictions.rows), "accuracy": result.accuracy}, *(path.name for path in written))
    picture = plotting.calibration(result, run.folder / "plots" / f"calibration_{split}.png", f"{run.task}: {run.id}, {split} part")
    return EvaluateResult(run.id, result, [str(path) for path in (*written, picture)])
