"""`tlfast train weeds [--full]`: eight weeds and "Negative" in Australian rangeland, DeepWeeds (256x256 colour), ResNet50.

Expected with compressed ImageNet weights (Uber Non-Commercial licence), seed 0, `--keep best` (November 2026; docs/results/deepweeds.md):

    partial, --views 1   test parts of the five official folds   accuracy 0.858   macro F1 0.812
    partial, --views 4   test parts of the five official folds   accuracy 0.876   macro F1 0.836
    --depth 1, 8 epochs  test part of the official fold 0        accuracy 0.905   macro F1 0.877
    --depth 2, 4 epochs  test part of the official fold 0        accuracy 0.923   macro F1 0.900
    partial, --views 1   five folds of days, `--group-by day`    accuracy 0.615   macro F1 0.472
    --depth 1, 4 epochs  the same, with the last epoch           accuracy 0.646   macro F1 0.515

The official folds have images of the same day and place in all parts. All layers have not been measured yet. Expected on a
substitute, the 12 species of Plant Seedlings (`--data`, `--size 128`), with ImageNet weights, seed 0 and `--keep best` (two CPU
cores, November 2026):

    partial, 10 epochs   mobilenetv2_100         accuracy 0.799   macro F1 0.795    59 s
    partial, 10 epochs   tf_efficientnet_lite0   accuracy 0.842   macro F1 0.828    63 s
    --depth 4, 6 epochs  mobilenetv2_100         accuracy 0.926   macro F1 0.918    73 s (mean of three seeds)
    full, 6 epochs       mobilenetv2_100         accuracy 0.934   macro F1 0.927   225 s (mean of three seeds)
    full, 6 epochs       tf_efficientnet_lite0   accuracy 0.935   macro F1 0.930   285 s

Olsen et al., DeepWeeds: A Multiclass Weed Species Image Dataset for Deep Learning, Scientific Reports 9, 2058 (2019). CC BY 4.0.
"""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

from ..core import DataError
from ..data import Row, Source, Task
from ..data.archives import copy_image
from ..data.images import is_image_name

# By their number in the label files.
CLASSES = (
    "Chinee apple", "Lantana", "Parkinsonia", "Parthenium", "Prickly acacia", "Rubber vine", "Siam weed", "Snake weed", "Negative",
)  # fmt: skip
IMAGES = 17_509
SPLIT_PREFIXES = {"train": "train", "val": "valid", "test": "test"}
MIRROR = "ai-agriculture-circuits-and-systems/deep_weeds"
COMMIT = "cb85c5648d43b2645c423f81d81816a7cb4233f4"
GITHUB = "https://raw.githubusercontent.com/AlexOlsen/DeepWeeds/master/labels/"
FOLD_FILES = tuple(f"{prefix}_subset{fold}.csv" for fold in range(5) for prefix in SPLIT_PREFIXES)
LABEL_FILE = re.compile(r"labels\.csv|(train|val|test)_subset[0-4]\.csv")

SHOOTING_DAY = r"^(\d{8})-\d{6}-\d+"  # in file names such as 20170914-100337-3.jpg

CSV_HINT = "The label files of DeepWeeds have the columns Filename and Label"


def rows(root: Path, fold: int | None) -> list[Row] | None:
    """Read DeepWeeds as published: `images/` or `data/`, and `labels/{train,val,test}_subset{fold}.csv` or only `labels.csv`.

    Without `fold`, the official fold 0 is read. Without the fold files, rows have no split and are grouped by the day of the photograph.
    Returns None if `root` has no such label files. Raises DataError.
    """
    labels = next((folder for folder in (root / "labels", root) if _label_files(folder)), None)
    if labels is None:
        return None
    images = next((folder for folder in (root / "images", root / "data") if folder.is_dir()), root)
    names = _species(labels / "labels.csv")
    number = fold or 0
    folds = {split: labels / f"{prefix}_subset{number}.csv" for prefix, split in SPLIT_PREFIXES.items()}
    present = {split: path for split, path in folds.items() if path.is_file()}
    if "train" in present and "valid" in present:
        return [row for split, path in present.items() for row in _read(path, images, names, split)]
    if not any((labels / name).is_file() for name in FOLD_FILES):
        return _read(labels / "labels.csv", images, names, "")
    missing = ", ".join(path.name for path in folds.values() if not path.is_file())
    raise DataError(f"{labels}: fold {number} has no {missing}", "Choose another --fold, or add the file")


def arrange(source: Path, target: Path, beside: Path) -> None:
    """Convert a download to `target/images/*.jpg` and `target/labels/*.csv`.

    The label files may be in the source, in the folder `beside`, or in its sub-folder `labels`. Raises DataError.
    """
    label_files = _label_files(source, deep=True) or _label_files(beside / "labels") or _label_files(beside)
    if not label_files:
        raise DataError(
            f"no label files for {source.name}: neither labels.csv nor train_subset0.csv",
            "Put the CSV files of github.com/AlexOlsen/DeepWeeds/tree/master/labels into the same folder",
        )
    (target / "images").mkdir(parents=True)
    (target / "labels").mkdir()
    for path in label_files:
        shutil.copyfile(path, target / "labels" / path.name)
    for path in sorted(path for path in source.rglob("*") if path.is_file() and is_image_name(path.name)):
        copy_image(path, target / "images" / path.name)


def _label_files(folder: Path, deep: bool = False) -> list[Path]:
    paths = (folder.rglob if deep else folder.glob)("*.csv")
    return sorted(path for path in paths if LABEL_FILE.fullmatch(path.name))


def _read(path: Path, images: Path, names: dict[str, str], split: str) -> list[Row]:
    table: list[Row] = []
    for line, record in enumerate(_records(path), start=2):
        name, number = (record["Filename"] or "").strip(), (record["Label"] or "").strip()
        if not name:
            raise DataError(f"{path} line {line}: no file name", CSV_HINT)
        if number not in names:
            raise DataError(f"{path} line {line}: label '{number}' of '{name}' is not one of {', '.join(names)}")
        table.append(Row(str(images / name), names[number], split, _shooting_day(name)))
    return table


def _species(path: Path) -> dict[str, str]:
    """Return the class of each label number: the species in `labels.csv` if there is one, else that of `CLASSES`."""
    names = {str(number): name for number, name in enumerate(CLASSES)}
    if path.is_file():
        spelled = {"negatives": "Negative"} | {name.lower(): name for name in CLASSES}
        for record in _records(path):
            species = (record.get("Species") or "").strip()
            if species:
                names[(record["Label"] or "").strip()] = spelled.get(species.lower(), species)
    return names


def _records(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"Filename", "Label"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{path}: no column {', '.join(sorted(missing))}", CSV_HINT)
            return list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file ({error})", CSV_HINT) from None


def _shooting_day(name: str) -> str:
    """Return the day in a file name, the group of an image, because images of one day show the same plants.

    >>> _shooting_day("20170914-100337-3.jpg")
    '20170914'
    """
    match = re.match(SHOOTING_DAY, Path(name).name)
    return match[1] if match else ""


TASK = Task(
    name="weeds",
    title="weeds in the field, DeepWeeds (256x256 colour photographs)",
    classes=CLASSES,
    defaults={"arch": "resnet50", "size": 224, "crop_pct": 0.875, "flip": "both", "rotate": 180.0},
    partial={"views": 4},
    full={"epochs": 6},
    aliases={"negatives": "Negative"},
    licence="CC BY 4.0",
    homepage="https://github.com/AlexOlsen/DeepWeeds",
    sources=(
        Source(
            "the authors' Google Drive and GitHub",
            files=(
                ("https://drive.usercontent.google.com/download?id=1xnK3B6K6KekDI55vwJ0vnc2IGoDga9cj&export=download&confirm=t", "images.zip"),
                (GITHUB + "labels.csv", "labels.csv"),
                *((GITHUB + name, name) for name in FOLD_FILES),
            ),
            size=468_000_000,
            images=IMAGES,
        ),
        Source(
            f"GitHub {MIRROR}",
            files=((f"https://codeload.github.com/{MIRROR}/tar.gz/{COMMIT}", f"deep_weeds-{COMMIT[:8]}.tar.gz"),),
            size=491_000_000,
            images=IMAGES,
        ),
        Source("Hugging Face Project-AgML/DeepWeeds_classification", hub_dataset="Project-AgML/DeepWeeds_classification"),
    ),
    by_hand="Download images.zip and the folder labels by the links on https://github.com/AlexOlsen/DeepWeeds",
    groupings={"day": SHOOTING_DAY},
    rows=rows,
    arrange=arrange,
)
