"""A finished run at work again: its network, and the images that it was trained and judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastai.data.core import DataLoaders, TfmdDL
from torch import nn

from .. import tasks
from ..core.errors import DataError
from ..core.events import Note, OnEvent
from ..core.runs import Run
from ..core.settings import Settings
from ..data import ImageTable, Store, load_table, open_store, scan
from ..data.sources import locate
from ..data.types import Preprocessing, Row
from ..evaluation import cam, metrics, predictions
from ..evaluation.report import Evidence
from ..evaluation.types import Evaluation, Predictions
from ..export import weights
from ..models.device import pick_device
from ..training.loaders import build_loaders, plain_loader

LOOK_AT_MOST = 50_000  # images, for a report that nobody asked to look at them


@dataclass(frozen=True)
class LoadedRun:
    """A run with its network in eval mode on the device, and the table and loaders of its images; `listed` are those that cannot be read too."""

    run: Run
    settings: Settings
    listed: Sequence[Row]
    table: ImageTable
    dls: DataLoaders
    network: nn.Module

    @property
    def temperature(self) -> float:
        """What the run's exports divide logits by; 1 for a run of a version that fitted none."""
        return self.run.manifest.get("temperature", 1.0)

    def loader(self, rows: Sequence[Row]) -> TfmdDL:
        """Return a loader over rows in their order, without augmentation."""
        return plain_loader(self.dls, rows, self.settings.bs)


def load_run(run: Run, data: str, on_event: OnEvent) -> LoadedRun:
    """Load a run's network and find its images again: in `data`, or where they were. Raises RunError or DataError."""
    settings = Settings.from_dict(run.manifest["settings"])
    listed = _rebuild_table(run, settings, data)
    table, store = _open_images(run, listed, settings, on_event)
    device = pick_device(settings.device)
    dls = build_loaders(table, _preprocessing(run, settings), settings, device, store)
    return LoadedRun(run, settings, listed.rows, table, dls, weights.load_model(run).to(device))


def predict_split(model: LoadedRun, split: str, on_event: OnEvent) -> Predictions:
    """Run the network once over a part of its images. Raises DataError where the part is empty."""
    rows = model.table.part(split)
    if not rows:
        others = [part for part in ("valid", "test") if model.table.part(part)]
        raise DataError(f"the data of {model.run.id} has no {split} part", "Use --split " + " or ".join(others))
    return predictions.predict_loader(model.network, model.loader(rows), rows, model.table.classes, on_event)


def evaluate_split(model: LoadedRun, said: Predictions, split: str) -> Evaluation:
    """Judge predictions as the training did: on the valid part, where the run's temperature was fitted, by temperatures fitted without the image."""
    return metrics.evaluate(said, split, None if split == "valid" else model.temperature, model.settings.seed)


def collect_evidence(model: LoadedRun, paths: Sequence[str], on_event: OnEvent) -> Evidence:
    """Return what a report shows: of `paths` where the run's network looked for its answer, and what is wrong with the data's images.

    Where nobody has looked at the images yet, they are looked at if they are few: of many that takes as long as decoding them all.
    """
    maps = cam.render_maps(model.network, paths, _preprocessing(model.run, model.settings), on_event)
    every = [row.path for row in model.listed]
    worth = len(every) <= LOOK_AT_MOST or scan.is_scanned(every)
    return Evidence(maps, scan.collect_findings(model.listed, scan.scan_images(every, on_event)) if worth else None)


def _rebuild_table(run: Run, settings: Settings, data: str) -> ImageTable:
    """Rebuild the table that the run was made from. Raises DataError where its classes are others now."""
    source = data or run.manifest["data"]["source"]
    task = tasks.registered_tasks().get(settings.task) or tasks.folder_task(Path(source))
    table = load_table(task, replace(settings, data=source), locate(task, source))
    if list(table.classes) != run.manifest["classes"]:
        raise DataError(f"{source} has other classes than the run {run.id}", f"The run's are: {', '.join(run.manifest['classes'])}")
    return table


def _open_images(run: Run, listed: ImageTable, settings: Settings, on_event: OnEvent) -> tuple[ImageTable, Store | None]:
    """Open the images that can be read; say so where they have changed since the run."""
    table, store = open_store(listed, settings, on_event)
    if table.fingerprint() != run.manifest["data"]["fingerprint"]:
        on_event(Note("data", f"the images of {listed.source} are not those that {run.id} was trained on"))
    return table, store


def _preprocessing(run: Run, settings: Settings) -> Preprocessing:
    return Preprocessing.from_settings(settings, (run.manifest["mean"], run.manifest["std"]))
