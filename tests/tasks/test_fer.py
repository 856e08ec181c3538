"""fer: every shape in which FER2013 goes around becomes train, valid and test folders of seven expressions."""

from __future__ import annotations

import csv
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.files import tree
from tests.helpers.paths import SHARED
from tlfast.core.errors import DataError
from tlfast.data import load_table
from tlfast.data.sources import import_data
from tlfast.tasks.fer import ALIASES, CLASSES, TASK
from tlfast.tasks.resolve import resolve_settings


def draw(path: Path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (48, 48), grey).save(path)


def write_csv(path: Path, rows: list[tuple[object, ...]], header: str = "emotion,pixels,Usage") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def face(grey: int) -> str:
    return " ".join([str(grey)] * 48 * 48)


def zip_of(folder: Path, archive: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for name in tree(folder):
            file.write(folder / name, prefix + name)
    return archive


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """A folder as Kaggle has it: PublicTest and PrivateTest merged in `test`."""
    folder = tmp_path / "archive"
    for label in CLASSES:
        draw(folder / "train" / label / "Training_1.jpg")
        draw(folder / "test" / label / "PublicTest_2.jpg")
        draw(folder / "test" / label / "PrivateTest_3.jpg")
    return folder


def test_csv_gives_parts_and_emotions_in_the_challenge_s_order(tmp_path):
    rows = [(number, face(10 * number), "Training") for number in range(7)] + [(0, face(70), "PublicTest"), (6, face(80), "PrivateTest")]
    target = import_data(TASK, str(write_csv(tmp_path / "fer2013.csv", rows)), str(tmp_path / "data"))
    assert target == tmp_path / "data" / "fer"
    assert tree(target) == [
        "test/neutral/PrivateTest_00008.png",
        "train/angry/Training_00000.png",
        "train/disgust/Training_00001.png",
        "train/fear/Training_00002.png",
        "train/happy/Training_00003.png",
        "train/neutral/Training_00006.png",
        "train/sad/Training_00004.png",
        "train/surprise/Training_00005.png",
        "valid/angry/PublicTest_00007.png",
    ]
    with Image.open(target / "train/sad/Training_00004.png") as image:
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("L", (48, 48), 40)


def test_csv_pixels_are_laid_out_row_by_row(tmp_path):
    pixels = " ".join(str(column) for _ in range(48) for column in range(48))
    target = import_data(TASK, str(write_csv(tmp_path / "fer2013.csv", [(3, pixels, "Training")])), str(tmp_path / "data"))
    with Image.open(target / "train/happy/Training_00000.png") as image:
        assert (image.getpixel((47, 0)), image.getpixel((0, 47))) == (47, 0)


def test_csv_inside_a_wrapped_zip(tmp_path):
    (tmp_path / "inner").mkdir()
    write_csv(tmp_path / "inner" / "fer2013.csv", [(3, face(1), "Training")])
    archive = zip_of(tmp_path / "inner", tmp_path / "challenge.zip", "fer2013/")
    assert tree(import_data(TASK, str(archive), str(tmp_path / "data"))) == ["train/happy/Training_00000.png"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((7, face(0), "Training"), "7"),
        ((-1, face(0), "Training"), "-1"),
        (("x", face(0), "Training"), "invalid literal"),
        ((0, "1 2 3", "Training"), "cannot reshape"),
        ((0, face(256), "Training"), "256 out of bounds"),
        ((0, face(0), "Validation"), "'Validation'"),
    ],
)
def test_csv_row_that_is_none_is_named(tmp_path, row, reason):
    source = write_csv(tmp_path / "fer2013.csv", [(0, face(0), "Training"), row])
    with pytest.raises(DataError, match=r"^fer2013.csv line 3 is not a row of fer2013.csv \(") as caught:
        import_data(TASK, str(source), str(tmp_path / "data"))
    assert reason in caught.value.message
    assert os.listdir(tmp_path / "data") == []


def test_archive_of_the_challenge(tmp_path):
    rows = [(number, "Training", face(10 * number)) for number in range(7)]
    write_csv(tmp_path / "icml_face_data.csv", rows, "emotion, Usage, pixels")
    (tmp_path / "fer2013.tar.gz").write_bytes(b"packed")
    with zipfile.ZipFile(tmp_path / "challenge.zip", "w") as archive:
        for name in ("icml_face_data.csv", "fer2013.tar.gz"):
            archive.write(tmp_path / name, name)
    assert len(tree(import_data(TASK, str(tmp_path / "challenge.zip"), str(tmp_path / "data")))) == 7


def test_csv_row_that_is_cut_short(tmp_path):
    source = write_csv(tmp_path / "fer2013.csv", [("Training", face(0))], header="Usage,pixels,emotion")
    with pytest.raises(DataError, match=r"^fer2013.csv line 2 is not a row of fer2013.csv \("):
        import_data(TASK, str(source), str(tmp_path / "data"))


def test_csv_without_its_columns(tmp_path):
    source = write_csv(tmp_path / "fer2013.csv", [(0, face(0), "Training")], header="emotion,image,part")
    with pytest.raises(DataError, match=r"(?m)^fer2013.csv: no column Usage, pixels$") as caught:
        import_data(TASK, str(source), str(tmp_path / "data"))
    assert caught.value.hint == "The original fer2013.csv has the columns emotion, pixels and Usage"


def test_csv_that_is_not_text(tmp_path):
    (tmp_path / "fer2013.csv").write_bytes(b"\xff\xd8\xff\xe0 an image in truth")
    with pytest.raises(DataError, match=r"^fer2013.csv is not a CSV file"):
        import_data(TASK, str(tmp_path / "fer2013.csv"), str(tmp_path / "data"))


def test_kaggle_s_merged_test_part_is_divided_by_file_name(tmp_path, kaggle):
    target = import_data(TASK, str(kaggle), str(tmp_path / "data"))
    assert tree(target) == sorted(
        [f"train/{label}/Training_1.jpg" for label in CLASSES]
        + [f"valid/{label}/PublicTest_2.jpg" for label in CLASSES]
        + [f"test/{label}/PrivateTest_3.jpg" for label in CLASSES]
    )
    table = load_table(TASK, resolve_settings(TASK, "partial", {}), target)
    assert table.classes == CLASSES
    assert {split: len(table.part(split)) for split in ("train", "valid", "test")} == {"train": 7, "valid": 7, "test": 7}


def test_kaggle_s_test_part_stays_where_no_file_name_tells(tmp_path):
    source = tmp_path / "archive"
    for label in CLASSES:
        draw(source / "train" / label / "im0.png")
        draw(source / "test" / label / "im0.png")
    assert {name.split("/")[0] for name in tree(import_data(TASK, str(source), str(tmp_path / "data")))} == {"train", "test"}


@pytest.mark.parametrize("prefix", ["", "archive/", "fer2013/archive/"])
def test_zip_with_folders_wrapped_around_it(tmp_path, kaggle, prefix):
    target = import_data(TASK, str(zip_of(kaggle, tmp_path / "fer.zip", prefix)), str(tmp_path / "data"))
    assert len(tree(target)) == 21
    assert os.listdir(tmp_path / "data") == ["fer"]


def test_other_spellings_of_parts_and_expressions(tmp_path):
    source = tmp_path / "faces"
    for alias in ALIASES:
        draw(source / "train" / alias.title() / "1.png")
    draw(source / "validation" / "Happy" / "2.png")
    assert tree(import_data(TASK, str(source), str(tmp_path / "data"))) == sorted(
        [f"train/{label}/1.png" for label in ALIASES.values()] + ["valid/happy/2.png"]
    )


def test_names_of_splits_in_upper_case(tmp_path, kaggle):
    (kaggle / "train").rename(kaggle / "Train")
    assert "train/happy/Training_1.jpg" in tree(import_data(TASK, str(kaggle), str(tmp_path / "data")))


def test_two_images_of_one_name(tmp_path):
    source = tmp_path / "faces"
    for folder in ("angry", "anger"):
        draw(source / "train" / folder / "1.png")
    import_data(TASK, str(source), str(tmp_path / "equal"))
    draw(source / "train" / "anger" / "1.png", 9)
    with pytest.raises(DataError, match="two different images would become angry/1.png"):
        import_data(TASK, str(source), str(tmp_path / "data"))


def test_unknown_expression(tmp_path, kaggle):
    draw(kaggle / "train" / "contempt" / "Training_9.jpg")
    with pytest.raises(DataError) as caught:
        import_data(TASK, str(kaggle), str(tmp_path / "data"))
    assert caught.value.message == "train/contempt is not one of the expressions: angry, disgust, fear, happy, neutral, sad, surprise"
    assert caught.value.hint == "Train without the task: tlfast train FOLDER"
    assert os.listdir(tmp_path / "data") == []


def test_folder_of_something_else(tmp_path):
    draw(tmp_path / "photos" / "cat" / "1.jpg")
    with pytest.raises(DataError, match=r"(?m)^photos has neither fer2013.csv nor a folder train$"):
        import_data(TASK, str(tmp_path / "photos"), str(tmp_path / "data"))


def test_source_is_left_as_it_was(tmp_path, kaggle):
    before = tree(kaggle)
    import_data(TASK, str(kaggle), str(tmp_path / "data"))
    assert tree(kaggle) == before


@pytest.mark.real
@pytest.mark.skipif(not (SHARED / "data" / "fer2013.zip").is_file(), reason="no ../shared/data/fer2013.zip")
def test_the_real_fer2013(tmp_path):
    target = import_data(TASK, str(SHARED / "data" / "fer2013.zip"), str(tmp_path / "data"))
    table = load_table(TASK, resolve_settings(TASK, "full", {}), target)
    assert (table.classes, len(table.part("train")), len(table.part("valid"))) == (CLASSES, 28_709, 3_589)
    assert table.summary().counts["train"] == {
        "angry": 3995, "disgust": 436, "fear": 4097, "happy": 7215, "neutral": 4965, "sad": 4830, "surprise": 3171,
    }  # fmt: skip
