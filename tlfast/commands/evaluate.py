"""`tlfast evaluate`: metrics of a run on its valid or test split."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..core import OnEvent, Run, ignore_event
from ..core.files import write_json
from ..core.runs import METRICS, name_split_file, record_test_use
from ..evaluation import Evaluation, apply_temperature, plots, save_predictions
from . import loaded_run


@dataclass(frozen=True)
class EvaluateResult:
    """Result of `tlfast evaluate`.

    Attributes:
        run: id of the run.
        evaluation: metrics on the split.
        files: files written into the run, for the test split only; those of the valid split are written by the training.
    """

    run: str
    evaluation: Evaluation
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return {**asdict(replace(self, evaluation=self.evaluation.without_confusion())), "evaluation": self.evaluation.to_dict()}


def evaluate_run(run: Run, split: str = "valid", data: str = "", device: str = "auto", on_event: OnEvent = ignore_event) -> EvaluateResult:
    """Evaluate a run on its valid or test split. For the test split, write the results into the run, and record that the split was used.

    `data` names the images if they have moved. Raises RunError, or DataError if the split is empty or the classes of the data differ from the run's.
    """
    model = loaded_run.load_run(run, data, device, on_event)
    predictions = loaded_run.predict_split(model, split, on_event)
    evaluation = loaded_run.evaluate_split(model, predictions, split)
    if split == "valid":
        return EvaluateResult(run.id, evaluation, [])
    written = [save_predictions(run.folder, predictions, split, apply_temperature(predictions.log_probabilities, model.temperature))]
    written.append(run.folder / name_split_file(METRICS, split))
    write_json(written[-1], evaluation.to_dict())
    record_test_use(run, "evaluate", {"images": len(predictions.rows), "accuracy": evaluation.accuracy}, *(path.name for path in written))
    picture = plots.plot_calibration(evaluation, run.folder / "plots" / name_split_file("calibration.png", split), f"{run.task}: {run.id}, {split} split")
    return EvaluateResult(run.id, evaluation, [str(path) for path in (*written, picture)])
