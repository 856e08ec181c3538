"""`tlfast predict` and `tlfast.load`: an exported classifier answers for images."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from . import exporting, images, runs
from .errors import ImageError, UsageError
from .learner import pick_device
from .results import Event, OnEvent, Prediction, PredictRow, ignore
from .settings import Settings

BATCH = 64
ImageSource = str | Path | bytes | Image.Image | np.ndarray


@dataclass(frozen=True)
class Classifier:
    """A trained classifier, ready to predict. `classes` are its labels in the order of its outputs."""

    model: nn.Module
    classes: tuple[str, ...]
    settings: Settings
    mean: torch.Tensor  # [3, 1, 1]
    std: torch.Tensor  # [3, 1, 1]
    run: str

    def predict(self, image: ImageSource) -> Prediction:
        """Classify one image: a path, an image file's bytes, a PIL image, or a uint8 array `[h, w, 3]`. Raises ImageError."""
        return self._answers([self.prepare(image)])[0]

    def prepare(self, image: ImageSource) -> np.ndarray:
        """Return what the network sees of an image before normalisation: uint8 `[size, size, 3]`. Raises ImageError."""
        s = self.settings
        return images.prepare(images.open_image(image), s.size, s.full_size, s.resize)

    def probabilities(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Prepared images, b of them, to probabilities `[b, c]`."""
        batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div_(255)
        with torch.inference_mode():
            logits = self.model(((batch - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        return logits.softmax(dim=1).numpy()

    def _answers(self, pixels: Sequence[np.ndarray]) -> list[Prediction]:
        return [_prediction(row, self.classes) for row in self.probabilities(pixels)]


def load(reference: str | Path, out: str = "exports") -> Classifier:
    """Load a classifier from a run folder, `exports/<task>`, a task's name or a run id. No pickle is opened. Raises RunError."""
    run = runs.find(str(reference), out)
    pick_device("cpu")
    mean, std = (torch.tensor(run.manifest[name]).view(3, 1, 1) for name in ("mean", "std"))
    settings = Settings.from_dict(run.manifest["settings"])
    return Classifier(exporting.load_model(run), tuple(run.manifest["classes"]), settings, mean, std, run.id)


def predict(classifier: Classifier, paths: Sequence[str], on_event: OnEvent = ignore) -> Iterator[PredictRow]:
    """Classify image files in their order, a batch at a time; an image that cannot be read gives a row with the reason."""
    remaining, done = iter(paths), 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        while chunk := list(islice(remaining, BATCH)):
            loaded = list(pool.map(lambda path: _try_prepare(classifier, path), chunk))
            good = [pixels for pixels in loaded if isinstance(pixels, np.ndarray)]
            answers = iter(classifier._answers(good) if good else [])
            for path, item in zip(chunk, loaded, strict=True):
                yield PredictRow(path, None, item) if isinstance(item, str) else PredictRow(path, next(answers))
            done += len(chunk)
            on_event(Event("predicting", done, len(paths)))


def expand(sources: Sequence[str]) -> list[str]:
    """Return the image files that files, folders (with all below them) and glob patterns name. Raises UsageError where there are none.

    A plain name is kept whether it exists or not: it will be a row that says so.
    """
    found: list[str] = []
    for source in sources:
        if os.path.isdir(source):
            found += [os.path.join(folder, name) for folder, _, names in sorted(os.walk(source)) for name in sorted(names) if images.is_image_name(name)]
        elif not os.path.exists(source) and glob.has_magic(source):
            found += sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
        else:
            found.append(source)
    if not found:
        raise UsageError("no images in " + ", ".join(sources), "Give image files, folders of them, or patterns in quotes")
    return found


def write_csv(path: str, rows: Sequence[PredictRow], classes: Sequence[str]) -> None:
    """Write predictions as CSV: path, label, probability, error, and one column of probabilities a class. Never overwrites."""
    try:
        with open(path, "x", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "probability", "error", *(f"p({name})" for name in classes)])
            for row in rows:
                p = row.prediction
                numbers = [p.probabilities[name] for name in classes] if p else [""] * len(classes)
                writer.writerow([row.path, p.label if p else "", p.probability if p else "", row.error, *numbers])
    except FileExistsError:
        raise UsageError(f"--csv {path}: the file exists already", "Name another; nothing is overwritten") from None
    except OSError as error:
        raise UsageError(f"--csv {path}: {error.strerror}", "Name a file in a folder that can be written") from None


def as_dict(row: PredictRow, top: int | None) -> dict[str, Any]:
    """Return a row for JSON, with its `top` likeliest classes, or all of them."""
    if row.prediction is None:
        return {"path": row.path, "error": row.error}
    likely = dict(islice(row.prediction.probabilities.items(), top))
    return {"path": row.path, "label": row.prediction.label, "probability": row.prediction.probability, "probabilities": likely}


def _try_prepare(classifier: Classifier, path: str) -> np.ndarray | str:
    try:
        return classifier.prepare(path)
    except ImageError as error:
        return error.message


def _prediction(probabilities: np.ndarray, classes: Sequence[str]) -> Prediction:
    ranked = {classes[i]: float(probabilities[i]) for i in np.argsort(-probabilities, kind="stable")}
    label = next(iter(ranked))
    return Prediction(label, ranked[label], ranked)
