"""What each command returns: frozen dataclasses, each of which can be written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .data.types import DataSummary, Finding
from .results import Agreement, Choice, ConfusedPair, Evaluation, Export, Phase


@dataclass(frozen=True)
class DataReport:
    """What a data set is, and what is wrong with it: how many images by kind of finding, the findings, and the files that hold and show them.

    `table` is a CSV of the images that were left when those of some kinds were dropped, `dropped` how many went for which.
    """

    summary: DataSummary
    counts: dict[str, int]
    findings: list[Finding] = field(default_factory=list)
    findings_file: str = ""
    page: str = ""
    table: str = ""
    dropped: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single findings, which may be very many and are in their file."""
        files = {"findings_file": self.findings_file, "page": self.page, "table": self.table}
        return {**self.summary.to_dict(), "findings": self.counts, **files, "dropped": self.dropped}


@dataclass(frozen=True)
class Plan:
    """What a training would do: shown by `--dry-run`."""

    settings: dict[str, Any]
    data: DataSummary
    weights: str
    device: str
    parameters: int
    trained_parameters: int
    depths: list[Choice] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TrainResult:
    """A finished training: its folder, what it was and how good it is."""

    run: str
    folder: str
    settings: dict[str, Any]
    weights: str
    device: str
    phases: list[Phase]
    evaluation: Evaluation
    data: DataSummary
    seconds: float
    onnx: Agreement | None = None
    plan: list[Choice] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class EvaluateResult:
    """What `tlfast evaluate` found, and the files that it wrote into the run (of the test part only; a training writes those of the valid part)."""

    run: str
    evaluation: Evaluation
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ArmScore:
    """One arm of a comparison: how good it is, with bootstrap 95 % intervals over the images, and what it costs.

    `seconds` are those of one training on all training images, the frozen backbone's pass counted even where it was kept from before;
    `megabytes` and `milliseconds` those of `model.onnx` for one image. `accuracy_sd` is the standard deviation over seeds (None: one seed).
    """

    name: str
    settings: dict[str, Any]
    accuracy: float
    accuracy_interval: tuple[float, float]
    accuracy_sd: float | None
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    images: int
    trainings: int
    seconds: float
    parameters: int
    megabytes: float
    milliseconds: float


@dataclass(frozen=True)
class ArmDifference:
    """How much better `first` is than `second` on the same images, with bootstrap 95 % intervals.

    `p` is McNemar's exact test's (of several seeds, of all their answers), `p_corrected` Holm's where there are several pairs. A difference is
    `shown` where the corrected p is below 0.05 and the interval of accuracy leaves 0 out.
    """

    first: str
    second: str
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    p: float
    p_corrected: float
    shown: bool


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy of an arm that was trained on a share of the training images."""

    arm: str
    share: float
    images: float
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Crossing:
    """Two arms of a learning curve, of which `better_below` is ahead up to about `share` of the training images and `better_above` from there."""

    better_below: str
    better_above: str
    share: float


@dataclass(frozen=True)
class CompareResult:
    """Arms trained and judged on the same images, and what can be said of their differences."""

    task: str
    source: str
    judged_on: str
    arms: list[ArmScore]
    differences: list[ArmDifference]
    verdict: str
    curve: list[CurvePoint]
    crossings: list[Crossing]
    reused: int  # trainings found from earlier
    seconds: float
    folder: str = ""
    files: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ReportResult:
    """The page and the model card that `tlfast report` wrote."""

    run: str
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class InterpretResult:
    """Where a classifier errs: per-class scores, the most confused pairs and the pictures drawn."""

    run: str
    evaluation: Evaluation
    confused: list[ConfusedPair]
    top_losses: list[dict[str, Any]]
    pictures: list[str]
    report: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ExportResult:
    """What `tlfast export` made: files in the run, and where a portable bundle lies ("" for none)."""

    run: str
    exports: list[Export]
    bundle: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
