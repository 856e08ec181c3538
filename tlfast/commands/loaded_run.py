"""A finished run, loaded: its network and its images. Shared by the commands `evaluate`, `interpret` and `report`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastai.data.core import DataLoaders, TfmdDL
from torch import nn

from .. import tasks
from ..core import DataError, DataSettings, Note, OnEvent, RunRecord, Settings, TlfastError
from ..core.errors import first_line, list_some
from ..core.runs import require_images
from ..data import Finding, ImageTable, Preprocessing, Row, Store, open_store, scan
from ..data.run_images import open_run_data, read_splits
from ..data.sources import EVALUATE_ALL, read_labelled
from ..data.split import drop_spare
from ..evaluation import Evaluation, Predictions, cam, evaluate
from ..evaluation.report import Evidence
from ..export import weights
from ..models import collect_garbage, move_network, pick_device, share_cores
from ..training.loaders import build_loaders, plain_loader
from ..training.prediction import predict_rows
from .check import read_label_findings

MAX_SCANNED = 50_000  # images; a report does not scan more, because that takes minutes


@dataclass(frozen=True)
class LoadedRun:
    """A run with its network and images.

    Attributes:
        run: the run.
        settings: settings of its training.
        listed: all images of its data, unreadable ones too.
        table: the readable images.
        dls: loaders of the readable images.
        network: network in eval mode, on the device.
    """

    run: RunRecord
    settings: Settings
    listed: Sequence[Row]
    table: ImageTable
    dls: DataLoaders
    network: nn.Sequential

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of the network's input."""
        return Preprocessing.of_run(self.run)

    def loader(self, rows: Sequence[Row]) -> TfmdDL:
        """Return a loader over `rows` in their order, without augmentation."""
        return plain_loader(self.dls, rows, self.settings.bs)


def load_run(run: RunRecord, data: str, device: str, on_event: OnEvent) -> LoadedRun:
    """Load the network and the images of a run, on any device. `data` names the images if they have moved, else "".

    Raises UsageError if torch has no such device, RunError or DataError.
    """
    chosen_device = pick_device(device)
    collect_garbage(chosen_device)  # of trainings before
    settings = run.settings
    listed = _rebuild_table(run, settings, data, on_event)
    table, store = _open_images(run, listed, settings, on_event)
    dls = build_loaders(table, Preprocessing.of_run(run), settings, chosen_device, store)
    network = move_network(weights.load_model(run), chosen_device)
    assert isinstance(network, nn.Sequential)  # body and head
    return LoadedRun(run, settings, listed.rows, table, dls, network)


def list_split(run: RunRecord, split: str, data: str, on_event: OnEvent) -> Sequence[Row]:
    """Return the readable images of a split, without the network of the run. Raises DataError if it is empty."""
    settings = run.settings
    table, _ = _open_images(run, _rebuild_table(run, settings, data, on_event), settings, on_event)
    return _select_split(run, table, split)


def list_labelled(run: RunRecord, data: str, columns: Mapping[str, str], on_event: OnEvent) -> Sequence[Row]:
    """Return all labelled images of `data`, whatever their split. Raises DataError if the run lacks one of their classes.

    `columns` are settings that name columns of a table with paths and labels, by default those of the training.
    """
    unused = {"split_col": DataSettings.split_col, "group_col": DataSettings.group_col}  # the table need not have those of the training
    settings = replace(Settings.from_dict({**run.manifest["settings"], **columns, **unused}), data=data)
    rows, classes = read_labelled(tasks.find_run_task(run.manifest, data), settings, on_event), run.classes
    if unknown := sorted({row.label for row in rows}.difference(classes)):
        raise DataError(f"{data} has classes that the run {run.id} does not know: {list_some(unknown)}", f"The run has: {list_some(classes)}")
    return rows


def predict_split(model: LoadedRun, split: str, on_event: OnEvent) -> Predictions:
    """Run the network on the images of a split. Raises DataError if it is empty."""
    rows = _select_split(model.run, model.table, split)
    with share_cores(model.dls.device):
        return predict_rows(model.network, model.dls, rows, model.table.classes, model.settings, on_event)


def _select_split(run: RunRecord, table: ImageTable, split: str) -> Sequence[Row]:
    rows = table.part(split)
    if not rows:
        available = [name for name in ("valid", "test") if table.part(name)]
        raise DataError(f"the data of {run.id} has no {split} split", "Use --split " + " or ".join(available))
    return rows


def evaluate_split(model: LoadedRun, split_predictions: Predictions, split: str, on_event: OnEvent) -> Evaluation:
    """Return the metrics of predictions for a split, as the training computes them.

    The run's temperature was fitted on the valid split. There, the calibration is therefore evaluated with cross-fitted temperatures.
    """
    if split == "valid":
        return evaluate(split_predictions, split, seed=model.settings.seed, calibrated=model.run.temperature != 1.0, on_event=on_event)
    return evaluate(split_predictions, split, model.run.temperature, model.settings.seed, on_event=on_event)


def collect_evidence(model: LoadedRun, paths: Sequence[str], on_event: OnEvent, check: bool = True) -> Evidence:
    """Return what a report needs besides the files of the run: activation maps for `paths`, the images, and findings of the data check.

    The images are scanned if there are at most 50,000, or if a scan is cached; otherwise, and without `check`, the findings are None.
    """
    maps = cam.render_maps(model.network, paths, model.preprocessing, on_event)
    findings, unchecked = _find_problems(model, on_event) if check else (None, "The data check was left out by --no-check.")
    return Evidence(maps, findings, unchecked, model.listed)


def _find_problems(model: LoadedRun, on_event: OnEvent) -> tuple[list[Finding] | None, str]:
    """Return the findings of the data check, with those of the last search for wrong labels; or None and the reason. Errors become a note."""
    try:
        rows = drop_spare(model.listed)
        listed = [row.path for row in rows]
        if len(listed) > MAX_SCANNED and not scan.is_scanned(listed):
            hint = "Run tlfast data check, then tlfast report, to show the findings here."
            return None, f"The {len(listed):,} images were not checked: a report checks at most {MAX_SCANNED:,}. {hint}"
        findings = scan.collect_findings(rows, scan.scan_images(listed, on_event), on_event)
        return findings + read_label_findings(model.run.folder.parent, rows), ""
    except (TlfastError, OSError) as error:  # a report without findings is better than none
        on_event(Note("report", f"no data check: {first_line(error)}"))
        return None, "The data check failed. tlfast data check shows why."


def _rebuild_table(run: RunRecord, settings: Settings, data: str, on_event: OnEvent) -> ImageTable:
    """Return the image table of the run's data, with its splits. Raises DataError if its classes differ from the run's."""
    if not data:
        require_images(run, "Name a folder with images of its classes: --data PATH")
    source = data or run.manifest["data"]["source"]
    task = tasks.find_run_task(run.manifest, source)
    table = open_run_data(run, task, replace(settings, data=source), on_event)
    if list(table.classes) != run.classes:
        found = f"the classes of {source} differ from those of the run {run.id}: {_describe_difference(table.classes, run.classes)}"
        raise DataError(found, f"To evaluate on some of the classes: {EVALUATE_ALL}")
    return table


def _describe_changes(run: RunRecord, listed: ImageTable, settings: Settings) -> list[str]:
    """Return notes on images that are not those of the training."""
    notes = [f"the images of {listed.source} differ from those that {run.id} was trained on"]
    known, present = read_splits(run, listed.source), {os.path.abspath(row.path): row.split for row in listed.rows}
    trained = {path for path, split in known.items() if split == "train"}
    unreadable = {os.path.abspath(image["path"]) for image in run.manifest["data"].get("unreadable", ())}
    added = len(present.keys() - known.keys() - unreadable)
    if known and added == len(present) and listed.source == run.manifest["data"]["source"]:
        notes.append("the splits of the training are those of other files, so training images may be evaluated, and the metrics may be too high")
    elif known and 0 < added < len(present) and not settings.limit and settings.train_pct == 1:
        notes.append(f"images that were added since: {added:,}; without a split in the data they are left out; {EVALUATE_ALL} takes all")
    for split in ("valid", "test"):
        paths = {path for path, of_split in present.items() if of_split == split}
        if repeated := len(trained & paths):
            notes.append(f"{repeated:,} of the {len(paths):,} {split} images were training images of {run.id}, so the metrics are too high")
    return notes


def _describe_difference(found: Sequence[str], known: Sequence[str]) -> str:
    """Return which classes are missing and which are unknown.

    >>> _describe_difference(["a", "c"], ["a", "b"])
    'b is missing; c is unknown'
    """
    parts = [(sorted(set(known).difference(found)), "missing"), (sorted(set(found).difference(known)), "unknown")]
    return "; ".join(f"{list_some(names)} {'is' if len(names) == 1 else 'are'} {what}" for names, what in parts if names) or "they are in another order"


def _is_unchanged(run: RunRecord, table: ImageTable) -> bool:
    """Return whether a table has the images of the training. Its source may be another, such as the `images.csv` of the run."""
    known, former = run.manifest["data"]["fingerprint"], run.manifest["data"].get("source", "")
    bases = (table.base, former if os.path.isdir(former) else os.path.dirname(former), os.path.dirname(table.rows[0].path))  # the last of unpacked images
    return any(replace(table, base=base).fingerprint() == known for base in bases)


def _open_images(run: RunRecord, listed: ImageTable, settings: Settings, on_event: OnEvent) -> tuple[ImageTable, Store | None]:
    """Open the readable images. Sends a note if they have changed since the training."""
    table, store = open_store(listed, settings, on_event)
    if not _is_unchanged(run, table):
        for note in _describe_changes(run, listed, settings):
            on_event(Note("data", note))
    return table, store
