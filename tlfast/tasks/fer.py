"""`tlfast train fer [--full]`: seven facial expressions, FER2013 (48x48 grey faces), MobileNetV2.

Expected on the valid split, at 96 px with ImageNet weights, seed 0 and `--keep best` (two CPU cores, November 2026):

    partial, 10 epochs   accuracy 0.482   macro F1 0.464      73 s
    --depth 4, 8 epochs  accuracy 0.648   macro F1 0.610     422 s
    full, 8 epochs       accuracy 0.653   macro F1 0.614     980 s

Goodfellow et al., Challenges in Representation Learning, 2013 (arXiv 1307.0414). For research use only.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ..core import DataError
from ..data import Source, Task
from ..data.archives import copy_image
from ..data.images import is_image_name

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
CSV_EMOTIONS = dict(enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")))  # by their number in fer2013.csv
CSV_SPLITS = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
SPLIT_FOLDERS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
ALIASES = {
    "anger": "angry", "disgusted": "disgust", "fearful": "fear", "happiness": "happy", "sadness": "sad", "surprised": "surprise",
}  # fmt: skip

CSV_FILES = ("fer2013.csv", "icml_face_data.csv")  # the first is packed once more in the archive of the challenge
CSV_HINT = "The original fer2013.csv has the columns emotion, pixels and Usage"


def arrange(source: Path, target: Path, beside: Path) -> None:
    """Convert a download to `target/{train,valid,test}/<expression>/`.

    The source is the original `fer2013.csv`, a folder with this file or with `icml_face_data.csv`, or a folder with `train/`, `valid/` and `test/`. On
    Kaggle, `test` holds both PublicTest and PrivateTest, with file names that start so; PublicTest becomes the valid split, as in the challenge. Raises
    DataError.
    """
    csv_file = source if source.is_file() else next((path for name in CSV_FILES for path in source.rglob(name)), None)
    if csv_file:
        _from_csv(csv_file, target)
        return
    root = _find_root(source)
    for split_folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name.lower() in SPLIT_FOLDERS):
        for class_folder in sorted(path for path in split_folder.iterdir() if path.is_dir()):
            _copy_class(class_folder, SPLIT_FOLDERS[split_folder.name.lower()], target)


def _copy_class(folder: Path, split: str, target: Path) -> None:
    label = ALIASES.get(folder.name.lower(), folder.name.lower())
    if label not in CLASSES:
        raise DataError(
            f"{folder.parent.name}/{folder.name} is not one of the expressions: " + ", ".join(CLASSES),
            "Train without the task: tlfast train FOLDER",
        )
    for image in sorted(path for path in folder.iterdir() if is_image_name(path.name)):
        image_split = "valid" if split == "test" and image.name.startswith("PublicTest") else split
        copy_image(image, target / image_split / label / image.name)


def _find_root(source: Path) -> Path:
    """Return the folder with `train/`: the source, or a folder up to two levels below it, as in some archives. Raises DataError."""
    for folder in (source, *sorted(path for path in source.rglob("*") if path.is_dir() and len(path.relative_to(source).parts) <= 2)):
        if any(path.name.lower() == "train" and path.is_dir() for path in folder.iterdir()):
            return folder
    raise DataError(f"{source.name} has neither fer2013.csv nor a folder train", "Give fer2013.csv, or a folder or zip with train/<expression>/*.jpg")


def _from_csv(source: Path, target: Path) -> None:
    """Write the images of `fer2013.csv` (columns emotion, pixels, Usage) as PNG files."""
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]  # those of icml_face_data.csv have blanks
            missing = {"emotion", "pixels", "Usage"} - set(reader.fieldnames)
            if missing:
                raise DataError(f"{source.name}: no column {', '.join(sorted(missing))}", CSV_HINT)
            for number, row in enumerate(reader):
                _write_csv_image(row, number, target, source)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source.name} is not a CSV file ({error})", CSV_HINT) from None


def _write_csv_image(row: dict[str, str], number: int, target: Path, source: Path) -> None:
    import numpy as np
    from PIL import Image

    try:
        pixels = np.array(row["pixels"].split(), dtype=np.uint8).reshape(48, 48)
        label, split = CSV_EMOTIONS[int(row["emotion"])], CSV_SPLITS[row["Usage"].strip()]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise DataError(f"{source.name} line {number + 2} is not a row of fer2013.csv ({error})", CSV_HINT) from None
    destination = target / split / label / f"{row['Usage'].strip()}_{number:05d}.png"
    destination.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(destination)


TASK = Task(
    name="fer",
    title="facial expressions, FER2013 (48x48 grey faces)",
    classes=CLASSES,
    defaults={"arch": "mobilenetv2_100", "size": 96, "flip": "horizontal", "rotate": 15.0, "colour": False},
    full={"epochs": 8},
    aliases=ALIASES,
    licence="research use only",
    homepage="https://www.kaggle.com/datasets/msambare/fer2013",
    sources=(
        Source("Hugging Face SmolVEncoder/fer2013", hub_dataset="SmolVEncoder/fer2013"),
        Source("Hugging Face Jeneral/fer-2013", hub_dataset="Jeneral/fer-2013"),
    ),
    by_hand="Download archive.zip from https://www.kaggle.com/datasets/msambare/fer2013 (or fer2013.csv of the challenge)",
    arrange=arrange,
)
